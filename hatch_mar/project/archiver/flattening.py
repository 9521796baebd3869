"""`--extra-files`: a list of files, folders and patterns, all of which end up in one folder.

A file keeps its name and loses its folder; of a folder, everything inside keeps its place and the
folder itself is lost. Hidden folders and the two below are left out, hidden files are not.
"""

from __future__ import annotations

import filecmp
from typing import TYPE_CHECKING

from hatch_mar.archive.staging import PREFIX
from hatch_mar.project.archiver.commandline import CommandLine, find_flaw_of_file
from hatch_mar.project.packages import LEFT_OUT, leads_back
from hatch_mar.project.spec import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

KEY = ("extra-files",)
FLAG = "--extra-files"


def resolve_extra_files(reading: CommandLine, text: str, output: Path) -> tuple[Entry, ...]:
    """Return the files that `text`, separated by commas, stands for; complain of what is missing.

    A pattern or a folder that happens to hold `output`, the archive that is about to be written,
    does not mean it.
    """
    found: list[Entry] = []
    for piece in filter(None, map(str.strip, text.split(","))):
        for path in _match(reading, piece):
            named = output.is_dir() and is_below(path, output)
            found += [each for each in _flatten(reading, path) if named or not _is_in(each, output)]
    return tuple(found)


def is_below(path: Path, folder: Path) -> bool:
    """Say whether `path` is `folder` or in it, links followed."""
    return path.resolve().is_relative_to(folder.resolve())


def _is_in(entry: Entry, output: Path) -> bool:
    return not isinstance(entry.source, bytes) and is_below(entry.source, output)


def _match(reading: CommandLine, piece: str) -> list[Path]:
    if "*" in piece or "?" in piece or ("[" in piece and "]" in piece):
        return reading.expand(KEY, piece)
    found = reading.find(KEY, piece)
    return [] if found is None else [found]


def _flatten(reading: CommandLine, path: Path) -> Iterator[Entry]:
    if not path.is_dir():
        yield from _one(reading, path, path.name)
        return
    try:
        for inner in _walk(path):
            yield from _one(reading, inner, inner.relative_to(path).as_posix())
    except OSError as error:
        reading.complain(KEY, f"'{error.filename}' cannot be read: {error.strerror}")


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            if not path.name.startswith(PREFIX):  # an archive that somebody is just writing
                yield path
        elif path.name not in LEFT_OUT and not path.name.startswith(".") and not leads_back(path):
            yield from _walk(path)


def _one(reading: CommandLine, path: Path, name: str) -> Iterator[Entry]:
    flaw = find_flaw_of_file(path)
    if flaw is None:
        yield Entry(name, path, FLAG)
    elif path.is_file():
        reading.complain(KEY, f"'{reading.relative(path)}' {flaw}")
    else:
        what = "is a link that leads nowhere" if path.is_symlink() else flaw
        reading.warn(f"{FLAG}: '{reading.relative(path)}' {what}; left out")


def without_copies(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Drop entries that bring the same bytes to the same place again: nothing is lost with them."""
    places: dict[str, Entry] = {}
    for entry in entries:
        other = places.setdefault(entry.name, entry)
        if other is entry or not _same(other.source, entry.source):
            yield entry


def _same(one: Path | bytes, other: Path | bytes) -> bool:
    if isinstance(one, bytes) or isinstance(other, bytes):
        return one == other
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
