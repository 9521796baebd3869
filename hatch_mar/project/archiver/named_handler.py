"""`--handler` of torch-model-archiver: a default handler, a file, or one function or class of it.

TorchServe calls the named function, or `handle`; where the module has none of that name, its one
class. A file is read for what it will find there; only what it certainly cannot use is a problem.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from hatch_mar.project.handler import CLASS_SHIM, ENTRY_POINT, SHIM, whose_initialize
from hatch_mar.project.source import Module, SourceError, find_flaw_of_module, read_module
from hatch_mar.project.spec import Entry, Handler
from hatch_mar.project.suggestion import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.project.archiver.commandline import CommandLine
    from hatch_mar.project.source import ClassSource
    from hatch_mar.project.spec import Initialize

KEY = ("handler",)
FLAG = "--handler"
INITIALIZES: dict[str, Initialize] = {
    "base_handler": "inherited",
    "text_classifier": "inherited",
    "image_classifier": "inherited",
    "object_detector": "inherited",
    "image_segmenter": "inherited",
    "dali_image_classifier": "inherited",
    "vllm_handler": "own",
    "trt_llm_handler": "own",
}
"""The default handlers that torch-model-archiver 0.12 knows, and whose `initialize` they have."""
COMPILED = ("BaseHandler", "TorchScriptHandler")
"""Those of TorchServe's C++ backend."""


def resolve_python_handler(reading: CommandLine, text: str) -> Handler | None:
    """Return the handler that `text` names for a Python runtime; None after complaining."""
    if text in INITIALIZES:
        found = f"default handler {text}"
        return Handler(manifest=text, kind="default", found=found, initialize=INITIALIZES[text])
    target, _, attribute = text.partition(":")
    if not target:
        reading.complain(KEY, f"'{text}' names no file")
        return None
    path = reading.find_file(KEY, target if target.endswith(".py") else f"{target}.py")
    if path is None:
        return None
    try:
        module = read_module(path)
    except SourceError as error:
        reading.complain(KEY, f"'{reading.relative(path)}': {error}")
        return None
    if not _can_be_imported(reading, path, module):
        return None
    handler = _choose(reading, path, module, attribute)
    written = PurePath(text).name
    if handler is not None and handler.manifest in (path.name, f"{path.stem}:{attribute}"):
        as_written = attribute if handler.kind == "class" else ""
        handler = replace(handler, manifest=path.name if as_written else written)
    return handler


def resolve_compiled_handler(reading: CommandLine, text: str) -> Handler | None:
    """Return the handler that `text` names for the C++ backend; None after complaining."""
    if text in COMPILED:
        found = f"default handler {text}"
        return Handler(manifest=text, kind="default", found=found, initialize="unknown")
    target, colon, attribute = text.partition(":")
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    library = target.removesuffix(suffix)
    path = reading.find_file(KEY, f"{library}{suffix}")
    if path is None:
        return None
    return Handler(
        manifest=f"{PurePath(library).name}{colon}{attribute}",
        kind="class",
        found=f"{reading.relative(path)}: a shared library",
        initialize="unknown",
        entries=(Entry(path.name, path, FLAG),),
    )


def _can_be_imported(reading: CommandLine, path: Path, module: Module) -> bool:
    if "." in path.stem:
        reading.complain(KEY, f"'{path.name}' cannot be imported, for the dot in it; rename it")
        return False
    relative = next((each for each in module.imports if each.level and not each.fallback), None)
    if relative is not None:
        reading.complain(
            KEY,
            f"'{reading.relative(path)}': line {relative.line}: a relative import, but the file "
            "stands alone at the root of the model directory; import the module by its name",
        )
        return False
    if path.stem.isidentifier() and (flaw := find_flaw_of_module(path.stem)):
        reading.warn(f"{FLAG}: '{path.name}' {flaw}")
    return True


def _choose(reading: CommandLine, path: Path, module: Module, attribute: str) -> Handler | None:
    """Find what TorchServe would call, and what it could not find but its author means."""
    wanted = attribute or ENTRY_POINT
    unseen = module.has_star_import or "__getattr__" in module.names
    if wanted in module.classes:
        return _class(reading, path, module, module.classes[wanted])
    if wanted in module.names or (attribute and unseen):
        return _function(reading, path, module, attribute)
    if not attribute and len(module.factories) == 1:
        return _function(reading, path, module, module.factories[0])
    if len(module.classes) == 1:
        (only,) = module.classes.values()
        if attribute:
            reading.warn(f"{FLAG}: {path.name} has no '{attribute}'; its class {only.name} is it")
        return _class(reading, path, module, only)
    if unseen and not module.classes:
        return _function(reading, path, module, "")
    reading.complain(KEY, _nothing_to_call(reading.relative(path), module, attribute))
    return None


def _nothing_to_call(file: str, module: Module, attribute: str) -> str:
    if attribute:
        return f"'{file}' has no '{attribute}'{did_you_mean(attribute, module.names)}"
    choices = [*module.factories, *module.classes]
    if not choices:
        return (
            f"'{file}' has no class, no function `{ENTRY_POINT}` and no handler_factory(...); "
            f"name a function: '{file}:function'"
        )
    return (
        f"'{file}' has no function `{ENTRY_POINT}`, but {len(choices)} things that may be the "
        f"handler ({', '.join(choices)}); name one: '{file}:{choices[-1]}'"
    )


def _function(reading: CommandLine, path: Path, module: Module, attribute: str) -> Handler:
    factory = (attribute or ENTRY_POINT) in module.factories
    return Handler(
        manifest=f"{path.stem}:{attribute}" if attribute else path.name,
        kind="factory" if factory else "function",
        found=f"{reading.relative(path)}: `{attribute or ENTRY_POINT}`",
        initialize="own",
        path=path,
        entries=(Entry(path.name, path, FLAG),),
    )


def _class(reading: CommandLine, path: Path, module: Module, chosen: ClassSource) -> Handler:
    """Return the handler for a class; a module of three lines points at one among several."""
    entries: tuple[Entry, ...] = (Entry(path.name, path, FLAG),)
    manifest = path.name
    if len(module.classes) > 1 or ENTRY_POINT in module.names:
        shim = CLASS_SHIM.format(module=path.stem, name=chosen.name)
        entries = (*entries, Entry(SHIM, shim.encode(), FLAG))
        manifest = SHIM
    return Handler(
        manifest=manifest,
        kind="class",
        found=f"{reading.relative(path)}: class `{chosen.name}`",
        initialize=whose_initialize(module, chosen),
        own_inference=not chosen.methods.isdisjoint({"inference", "handle"}),
        path=path,
        entries=entries,
    )
