"""Which handler the author means, and what the manifest must say so that every server finds it.

TorchServe resolves a handler in three steps: `module:name` is called as a function; else a name
`handle` in the module is; else the module must define exactly one class. Where the author's choice
does not fit (a class among several, a class in a package) the archive gets a module of three lines
that does.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.project.packages import SOURCE_FOLDERS, Package, find_package
from hatch_mar.project.reading import is_file
from hatch_mar.project.source import (
    ClassSource,
    Module,
    SourceError,
    find_flaw_of_module,
    read_module,
)
from hatch_mar.project.spec import Entry, Handler, Initialize
from hatch_mar.project.suggestion import did_you_mean, nearby_file

if TYPE_CHECKING:
    from hatch_mar.project.reading import Reading

DEFAULT_HANDLERS = (
    "base_handler",
    "image_classifier",
    "image_segmenter",
    "object_detector",
    "text_classifier",
    "densenet_handler",
    "dali_image_classifier",
    "vllm_handler",
    "trt_llm_handler",
)
CONVENTIONAL = "handler.py"
ENTRY_POINT = "handle"
SHIM = "hatch_mar_handler.py"
KEY = ("handler",)
DEFAULT_BASES = frozenset(
    {
        "BaseHandler",
        "VisionHandler",
        "TextHandler",
        "ImageClassifier",
        "ImageSegmenter",
        "ObjectDetector",
        "TextClassifier",
    }
)
"""Classes of `ts.torch_handler`: their `initialize` loads the model."""

CLASS_SHIM = '''\
"""Made by hatch-mar: the one class that a model server looks for."""

from {module} import {name} as _Handler


class Handler(_Handler):
    """`{name}` of `{module}`."""
'''
OBJECT_SHIM = '''\
"""Made by hatch-mar: what a model server looks for, whichever of the two it is."""

from {module} import {name} as _handler

if isinstance(_handler, type):

    class Handler(_handler):
        """`{name}` of `{module}`."""

else:
    handle = _handler
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A handler's module: how it is imported in the model directory, and its source."""

    name: str
    module: Module
    path: Path
    label: str
    """The file as the author knows it."""
    entries: tuple[Entry, ...]


def resolve_handler(reading: Reading, packages: tuple[Package, ...]) -> Handler | None:
    """Return the handler that `[tool.mar]` asks for; None after complaining."""
    text = reading.table.handler
    if text is None:
        if "handler" in reading.broken:
            return None
        if not (reading.root / CONVENTIONAL).is_file():
            names = ", ".join(DEFAULT_HANDLERS)
            reading.complain(
                KEY,
                f"is required, because there is no {CONVENTIONAL}; name a Python file, "
                f"`package.module:Class`, or one of {names}",
            )
            return None
        text = CONVENTIONAL
    if text in DEFAULT_HANDLERS:
        return Handler(
            manifest=text, kind="default", found=f"default handler {text}", initialize="inherited"
        )
    target, _, attribute = text.partition(":")
    if attribute and not attribute.isidentifier():
        reading.complain(KEY, f"'{attribute}' is no name of a function, a class or an object")
    elif target.endswith(".py"):
        return _in_file(reading, target, attribute)
    elif attribute and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", target):
        return _in_module(reading, target, attribute, packages)
    else:
        _complain_of_name(reading, text)
    return None


def _complain_of_name(reading: Reading, text: str) -> None:
    target = text.partition(":")[0]
    files = [path.name for path in reading.root.glob("*.py")]
    if f"{target}.py" in files or is_file(reading.root / f"{target}.py"):
        hint = f"; did you mean '{text.replace(target, f'{target}.py', 1)}'?"
    else:
        hint = did_you_mean(text, [*DEFAULT_HANDLERS, *files])
    reading.complain(
        KEY, f"'{text}' is neither a default handler, a Python file nor `module:object`{hint}"
    )


def _in_file(reading: Reading, target: str, attribute: str) -> Handler | None:
    path = reading.find_file(KEY, target)
    module = reading.module(path) if path else None
    if path is None or module is None:
        return None
    relative = next((each for each in module.imports if each.level and not each.fallback), None)
    if relative:
        reading.complain(
            KEY,
            f"{target}: line {relative.line}: a relative import, but the file stands alone at the "
            "root of the model directory; name it as `package.module:object`",
        )
        return None
    flaw = find_flaw_of_module(path.stem)
    if flaw is not None:
        reading.complain(KEY, f"'{path.name}' {flaw}")
        return None
    entries = (Entry(path.name, path, "handler"),)
    found = _Found(
        name=path.stem, module=module, path=path, label=reading.relative(path), entries=entries
    )
    return _choose(reading, found, attribute)


def _in_module(
    reading: Reading, target: str, attribute: str, packages: tuple[Package, ...]
) -> Handler | None:
    """Find `package.module:object` in a package of the project, or in an installed one."""
    top, _, inner = target.partition(".")
    package = next((each for each in packages if each.name == top), None)
    if package is None and find_package(reading, top) is None:
        files = (f"{folder}/{top}.py".lstrip("/") for folder in SOURCE_FOLDERS)
        file = next((each for each in files if is_file(reading.root / each)), None)
        if file is None:
            return _installed(reading, target, attribute)
        reading.complain(KEY, f"'{top}' is a file of this project; write '{file}:{attribute}'")
        return None
    if package is None:
        reading.complain(KEY, f"'{top}' is a package of this project, but not in `packages`")
        return None
    path = _submodule(package.path, inner)
    if path is None:
        base = package.path / Path(*inner.split("."))
        hint = nearby_file(reading.root, f"{reading.relative(base)}.py")
        reading.complain(KEY, f"there is no module '{target}'{hint}")
        return None
    module = reading.module(path)
    if module is None:
        return None
    found = _Found(name=target, module=module, path=path, label=reading.relative(path), entries=())
    return _choose(reading, found, attribute)


def _submodule(package: Path, dotted: str) -> Path | None:
    """Return the file of a module below a package's directory."""
    base = package.joinpath(*dotted.split(".")) if dotted else package
    candidates = (
        (base.with_suffix(".py"), base / "__init__.py") if dotted else (base / "__init__.py",)
    )
    return next((path for path in candidates if is_file(path)), None)


def _installed(reading: Reading, target: str, attribute: str) -> Handler | None:
    """Accept an object of an installed package, read if it is here to be read.

    A build runs in an environment of its own, which need not have what the model will run with.
    """
    path = _installed_file(target)
    found = f"{target}:{attribute}, of an installed package"
    initialize: Initialize = "unknown"
    if path is None:
        if not reading.project.get("dependencies"):
            reading.complain(
                KEY, f"there is no module '{target}' in the project, nor a dependency to bring it"
            )
            return None
        reading.notes.append(f"handler: '{target}' is not installed here, so nobody has looked")
    else:
        try:
            module = read_module(path)
        except SourceError as error:
            reading.complain(KEY, f"'{target}': {error}")
            return None
        if attribute not in module.names and not module.has_star_import:
            hint = did_you_mean(attribute, module.names)
            reading.complain(KEY, f"'{target}' has no '{attribute}'{hint}")
            return None
        if attribute in module.classes:
            initialize = whose_initialize(module, module.classes[attribute])
    shim = OBJECT_SHIM.format(module=target, name=attribute)
    return Handler(
        manifest=SHIM,
        kind="installed",
        found=found,
        initialize=initialize,
        entries=(Entry(SHIM, shim.encode(), "handler"),),
    )


def _installed_file(target: str) -> Path | None:
    """Find a module's source without importing anything, its parent packages included."""
    top, _, inner = target.partition(".")
    spec: importlib.machinery.ModuleSpec | None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    places = spec.submodule_search_locations or ()
    found = (_submodule(Path(place), inner) for place in places)
    return next((path for path in found if path is not None), None)


def _choose(reading: Reading, found: _Found, attribute: str) -> Handler | None:
    """Pick the object that `attribute` names, or the one that a model server would pick."""
    if not attribute:
        return _pick(reading, found)
    module = found.module
    if attribute in module.classes:
        return _class(found, module.classes[attribute])
    if attribute in module.names or module.has_star_import:
        return _named(found, attribute)
    hint = did_you_mean(attribute, module.names)
    reading.complain(KEY, f"{found.label} has no '{attribute}'{hint}")
    return None


def _pick(reading: Reading, found: _Found) -> Handler | None:
    """Do as TorchServe does with a bare file, and know a `handler_factory` when there is one."""
    module = found.module
    if ENTRY_POINT in module.names:
        return _whole(found, f"`{ENTRY_POINT}`", "own")
    if len(module.factories) == 1:
        return _named(found, module.factories[0])
    if module.factories:
        names = ", ".join(module.factories)
        example = f"{found.label}:{module.factories[0]}"
        reading.complain(KEY, f"{found.label} makes several ({names}); name one: '{example}'")
        return None
    if len(module.classes) == 1:
        return _class(found, next(iter(module.classes.values())))
    if module.has_star_import and not module.classes:
        return _whole(found, "whatever its star import brings", "unknown")
    if module.classes:
        names = ", ".join(module.classes)
        example = f"{found.label}:{list(module.classes)[-1]}"
        reading.complain(
            KEY,
            f"{found.label} has {len(module.classes)} classes ({names}) and no function "
            f"`{ENTRY_POINT}`; name one: '{example}'",
        )
    else:
        reading.complain(
            KEY,
            f"{found.label} has no class, no function `{ENTRY_POINT}` and no handler_factory(...)"
            f"; name a function: '{found.label}:function'",
        )
    return None


def _whole(found: _Found, what: str, initialize: Initialize) -> Handler:
    """Return the handler for a file in which a model server looks for `handle` by itself."""
    return Handler(
        manifest=found.path.name,
        kind="function",
        found=f"{found.label}: {what}",
        initialize=initialize,
        path=found.path,
        entries=found.entries,
    )


def _named(found: _Found, attribute: str) -> Handler:
    """Return the handler for a function, or for what `handler_factory` made."""
    factory = attribute in found.module.factories
    call = f"{attribute} = handler_factory(...)" if factory else attribute
    return Handler(
        manifest=f"{found.name}:{attribute}",
        kind="factory" if factory else "function",
        found=f"{found.label}: `{call}`",
        initialize="own",
        path=found.path,
        entries=found.entries,
    )


def _class(found: _Found, chosen: ClassSource) -> Handler:
    """Return the handler for a class; a shim unless TorchServe would pick it by itself."""
    alone = len(found.module.classes) == 1 and ENTRY_POINT not in found.module.names
    entries = found.entries
    manifest = found.path.name
    if not alone or "." in found.name:
        shim = CLASS_SHIM.format(module=found.name, name=chosen.name)
        entries = (*entries, Entry(SHIM, shim.encode(), "handler"))
        manifest = SHIM
    return Handler(
        manifest=manifest,
        kind="class",
        found=f"{found.label}: class `{chosen.name}`",
        initialize=whose_initialize(found.module, chosen),
        own_inference=not chosen.methods.isdisjoint({"inference", "handle"}),
        path=found.path,
        entries=entries,
    )


def whose_initialize(module: Module, chosen: ClassSource) -> Initialize:
    """Follow a class to the `initialize` that will load the model, as far as this file tells."""
    seen: set[str] = set()
    unknown = False
    queue = [chosen]
    while queue:
        current = queue.pop(0)
        seen.add(current.name)
        if "initialize" in current.methods and not current.passes_initialize_on:
            return "own"
        for base in current.bases:
            last = base.rpartition(".")[2]
            imported = next(
                (each.names[last] for each in module.imports if last in each.names), last
            )
            if imported in DEFAULT_BASES:
                return "inherited"
            if base in module.classes and base not in seen:
                queue.append(module.classes[base])
            elif base not in ("object", "ABC", "abc.ABC"):
                unknown = True
    return "unknown" if unknown else "own"
