"""What an archive carries of ours, so that its handler also runs in stock TorchServe."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from hatch_mar.project.spec import Entry, Handler
from hatch_mar.project.travel import FACTORY_MODULE, PACKAGE_MODULE, Travel

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hatch_mar.project.reading import Reading

FACTORY_FILE = f"{FACTORY_MODULE}.py"
PACKAGE_FILE = f"{PACKAGE_MODULE}.py"
PACKAGE_SHIM = f"from {FACTORY_MODULE} import handler_factory  # noqa: F401\n"
KEY = "handler"


def factory_source() -> bytes:
    """Return the one file that `handler_factory` is; read, for it must not be imported here."""
    return resources.files("hatch_mar").joinpath("model", "factory.py").read_bytes()


def factory_entries(
    reading: Reading, travel: Travel, handler: Handler | None, carried: Iterable[Entry]
) -> tuple[Entry, ...]:
    """Return the files that imports of `base_handler` and `hatch_mar` need beside the handler.

    An author's own file of that name is what the handler means: it is carried, and never replaced.
    """
    names = {entry.name for entry in carried}
    entries = []
    if (travel.imports_factory or travel.imports_package) and FACTORY_FILE not in names:
        own = handler.path.with_name(FACTORY_FILE) if handler and handler.path else None
        if own is not None and travel.imports_factory and _is_own(reading, own):
            reading.notes.append(f"{reading.relative(own)}: taken along instead of hatch-mar's own")
            entries.append(Entry(FACTORY_FILE, reading.take(own), KEY))
        else:
            entries.append(Entry(FACTORY_FILE, factory_source(), KEY))
    if travel.imports_package and PACKAGE_FILE not in names:
        entries.append(Entry(PACKAGE_FILE, PACKAGE_SHIM.encode(), KEY))
    return tuple(entries)


def _is_own(reading: Reading, path: Path) -> bool:
    return path.is_file() and reading.is_inside(path)
