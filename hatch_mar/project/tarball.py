"""The extra-files tarball: what it is called, and who packs it.

`system.extraFiles` names tarballs that a server unpacks beside the handler. The author brings them
ready-made, or leaves one to us with `extra-layout = "tarball"`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatch_mar.project.spec import Entry
from hatch_mar.project.suggestion import did_you_mean

if TYPE_CHECKING:
    from hatch_mar.project.config import Config
    from hatch_mar.project.extras import Extras
    from hatch_mar.project.reading import Reading

DEFAULT_NAME = "extra_files.tar"
SUFFIXES = (".tar", ".tar.gz", ".tgz")
"""What we can pack: a plain tar, or one that its name asks to be compressed."""


@dataclass(frozen=True, slots=True)
class Tarballs:
    """The tarball to build, if any, and the ready-made ones."""

    built: str | None
    ready_made: tuple[Entry, ...]


def is_gzip(name: str) -> bool:
    """Say whether a tarball of this name is compressed."""
    return not name.endswith(".tar")


def resolve_tarballs(reading: Reading, config: Config, extras: Extras) -> Tarballs:
    """Find what `system.extraFiles` names, and say there what we are going to build."""
    named = _named(config)
    carried = {entry.name for entry in extras.plain}
    ready_made = []
    missing = []
    for name in named:
        path = reading.root / name
        if name in carried:
            continue
        if path.is_file() and reading.is_inside(path):
            ready_made.append(Entry(name, reading.take(path), "system.extra-files"))
        else:
            missing.append(name)
    built = _name_to_build(reading, config, named, missing) if extras.packed else None
    for name in missing:
        if name != built:
            _complain(reading, config, name, packs=bool(extras.packed))
    if built is not None and built not in named:
        names = [*named, built]
        config.set("system", "extraFiles", names[0] if len(names) == 1 else names)
    return Tarballs(built, tuple(ready_made))


def _named(config: Config) -> list[str]:
    value = config.section.get("extraFiles")
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _name_to_build(reading: Reading, config: Config, named: list[str], missing: list[str]) -> str:
    """Return the first name that nothing else answers to, or our own."""
    if not missing:
        return DEFAULT_NAME if DEFAULT_NAME not in named else f"packed_{DEFAULT_NAME}"
    if not missing[0].endswith(SUFFIXES):
        _complain(reading, config, missing[0], packs=True)
    return missing[0]


def _complain(reading: Reading, config: Config, name: str, *, packs: bool) -> None:
    if reading.broken & {"extra-files", "extra-layout"}:
        return  # they might have made it
    if packs and not name.endswith(SUFFIXES):
        endings = ", ".join(SUFFIXES)
        message = f"'{name}' is to be packed from `extra-files`, and would have to end in {endings}"
    elif packs:
        message = f"'{name}' does not exist, and `extra-files` make one tarball only"
    else:
        here = [path.name for path in reading.root.iterdir() if path.is_file()]
        remedy = '; `extra-layout = "tarball"` packs `extra-files` into it'
        message = f"'{name}' does not exist{did_you_mean(name, here) or remedy}"
    place = config.placed.get(("system", "extraFiles"))
    if place is not None:
        reading.complain(place, message)
    else:
        reading.complain_of_file(config.path, "system.extraFiles", message)
