"""The extra-files tarball: what it is called, and who packs it.

`system.extraFiles` names tarballs that a server unpacks beside the handler. The author brings them
ready-made, or leaves one to us with `extra-layout = "tarball"`.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.archive.names import find_flaw
from hatch_mar.archive.unpack import open_extra_files
from hatch_mar.errors import ArchiveError
from hatch_mar.project.reading import is_file
from hatch_mar.project.spec import Entry
from hatch_mar.project.suggestion import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatch_mar.project.config import Config
    from hatch_mar.project.extras import Extras
    from hatch_mar.project.reading import Reading

KEY = "system.extra-files"
DEFAULT_NAME = "extra_files.tar"
SUFFIXES = (".tar", ".tar.gz", ".tgz")
"""What we can pack: a plain tar, or one that its name asks to be compressed."""


@dataclass(frozen=True, slots=True)
class Tarballs:
    """The tarball to build, if any, and the ready-made ones."""

    built: str | None
    ready_made: tuple[Entry, ...]
    contents: tuple[Entry, ...]
    """What is in the ready-made ones, by name alone: the bytes stay where they are."""


def is_gzip(name: str) -> bool:
    """Say whether a tarball of this name is compressed."""
    return not name.endswith(".tar")


def resolve_tarballs(reading: Reading, config: Config, extras: Extras) -> Tarballs:
    """Find what `system.extraFiles` names, and say there what we are going to build."""
    named = _named(config)
    carried = {entry.name: entry for entry in extras.plain}
    ready_made = []
    missing = []
    for name in named:
        path = reading.root / name
        if name in carried:
            ready_made.append(carried[name])
        elif is_file(path) and reading.is_inside(path):
            ready_made.append(Entry(name, reading.take(path), KEY))
        else:
            missing.append(name)
    built = _name_to_build(reading, config, named, missing) if extras.packed else None
    for name in missing:
        if name != built:
            _complain(reading, config, name, packs=bool(extras.packed))
    if built is not None and built not in named:
        names = [*named, built]
        config.set("system", "extraFiles", names[0] if len(names) == 1 else names)
    contents = [each for entry in ready_made for each in _look_into(reading, entry)]
    return Tarballs(built, tuple(ready_made), tuple(contents))


def _named(config: Config) -> list[str]:
    """Return the names that the config gives; with those that are none, it has been found wrong."""
    value = config.section.get("extraFiles")
    names = value if isinstance(value, list) else [value]
    return [each for each in names if isinstance(each, str) and find_flaw(each) is None]


def _look_into(reading: Reading, tarball: Entry) -> Iterator[Entry]:
    """Yield what is in a ready-made tarball; complain of one that no server could unpack."""
    path = tarball.source
    if not isinstance(path, Path):
        return
    try:
        with closing(open_extra_files(path)) as members:
            yield from (Entry(name, b"", tarball.key) for name in members.names())
    except ArchiveError as error:
        reading.complain_of_file(path, "", str(error).removeprefix(f"{path}: "))


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
