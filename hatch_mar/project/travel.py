"""Following the handler's imports through the files that travel, to see whether they arrive.

In the model directory everything lies together: the handler at the root, trees as trees. What an
import finds there is known without running anything; so is what it finds only in the project.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.project.packages import find_package
from hatch_mar.project.reading import is_file
from hatch_mar.project.source import FACTORY_NAME, Import

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hatch_mar.project.reading import Reading
    from hatch_mar.project.spec import Entry

FACTORY_MODULE = "base_handler"
PACKAGE_MODULE = "hatch_mar"


@dataclass(slots=True)
class Travel:
    """What the imports came to."""

    imports_factory: bool = False
    """Something imports `base_handler`."""
    imports_package: bool = False
    """Something imports `handler_factory` from `hatch_mar`, with nothing to fall back on."""
    before_unpacking: list[str] = field(default_factory=list)
    """Modules of the tarball that the handler imports before anything can have unpacked it."""


@dataclass(frozen=True, slots=True)
class _Stop:
    """One module on the way: its name in the model directory, and its file."""

    name: str
    path: Path

    @property
    def package(self) -> str:
        """What a relative import starts from."""
        is_package = self.path.name == "__init__.py"
        return self.name if is_package else self.name.rpartition(".")[0]


def follow_imports(
    reading: Reading, start: Iterable[Path], plain: Iterable[Entry], packed: Iterable[Entry]
) -> Travel:
    """Read `start` and what it imports of `plain` and `packed`; complain of what stays behind.

    Of files that are in a ready-made tarball only the names are known: they are not followed.
    """
    plain_modules = dict(_modules(plain))
    packed_modules = dict(_modules(packed))
    modules = {**packed_modules, **plain_modules}
    names = {path: name for name, path in modules.items() if path is not None}
    travel = Travel()
    queue = [_Stop(names[path], path) for path in start if path in names]
    first = queue[0] if queue else None
    seen = set()
    unpacked = False
    while queue:
        stop = queue.pop(0)
        if stop.path in seen:
            continue
        seen.add(stop.path)
        module = reading.module(stop.path)
        for each in module.imports if module else ():
            unpacked = _note_factory(travel, each) or unpacked
            for target in _targets(stop, each):
                if target not in modules:
                    continue
                path = modules[target]
                if path is not None:
                    queue.append(_Stop(target, path))
                if stop is first and not unpacked and target not in plain_modules:
                    travel.before_unpacking.append(target)
            _complain_of_stragglers(reading, stop, each, modules)
    return travel


def _modules(entries: Iterable[Entry]) -> Iterator[tuple[str, Path | None]]:
    """Yield each Python file's module name in the model directory, and the file if it is one."""
    for entry in entries:
        if entry.name.endswith(".py"):
            name = entry.name.removesuffix(".py").removesuffix("/__init__")
            path = entry.source if isinstance(entry.source, Path) else None
            yield name.replace("/", "."), path


def _targets(stop: _Stop, each: Import) -> Iterator[str]:
    """Yield the modules that an import may load: parents, itself, and names that are modules."""
    base = each.module
    if each.level:
        package = stop.package.split(".") if stop.package else []
        kept = package[: len(package) - (each.level - 1)]
        base = ".".join([*kept, *([each.module] if each.module else [])])
    parts = base.split(".")
    for depth in range(1, len(parts) + 1):
        yield ".".join(parts[:depth])
    for name in each.names.values():
        if name != each.module:
            yield f"{base}.{name}"


def _note_factory(travel: Travel, each: Import) -> bool:
    """Record an import of the factory, and say whether it is one."""
    if each.module == FACTORY_MODULE and not each.level:
        travel.imports_factory = True
        return True
    if each.module == PACKAGE_MODULE and (
        FACTORY_NAME in each.names.values() or each.names.get(PACKAGE_MODULE)
    ):
        if not each.fallback:
            travel.imports_package = True
        return True
    return False


def _complain_of_stragglers(
    reading: Reading, stop: _Stop, each: Import, modules: dict[str, Path | None]
) -> None:
    """Complain if an import finds its module in the project, but not in the model directory."""
    if reading.broken & {"extra-files", "packages"}:
        return
    root = _import_root(stop)
    travelling = set(modules.values())
    for target in _targets(stop, each):
        top = target.partition(".")[0]
        if target in modules or top in (FACTORY_MODULE, PACKAGE_MODULE) or _is_standard(target):
            continue
        base = root.joinpath(*target.split("."))
        file = base.with_suffix(".py")
        place = f"{reading.relative(stop.path)}: line {each.line}"
        if is_file(file) and reading.is_inside(file) and file not in travelling:
            if not each.fallback:
                straggler = reading.relative(file)
                message = (
                    f"imports '{target}', but {straggler} stays behind; add it to `extra-files`"
                )
                reading.complain_of_file(stop.path, f"line {each.line}", message)
        elif "." not in target and _is_package(reading, base):
            reading.suggest_package(place, target)


def _is_package(reading: Reading, base: Path) -> bool:
    """Say whether `base`, or a package of that name where a wheel takes them from, is a package."""
    found = find_package(reading, base.name)
    folders = [base, found.path] if found else [base]
    return any(is_file(folder / "__init__.py") for folder in folders)


def _import_root(stop: _Stop) -> Path:
    """Return the folder of the project that plays the part of the model directory's root."""
    dotted = stop.path.parent if stop.path.name == "__init__.py" else stop.path.with_suffix("")
    parts = stop.name.split(".")
    if dotted.parts[-len(parts) :] == tuple(parts):
        return Path(*dotted.parts[: -len(parts)])
    return stop.path.parent  # a file that `to` moves


def _is_standard(target: str) -> bool:
    return target.partition(".")[0] in sys.stdlib_module_names
