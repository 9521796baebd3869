"""Extra files: which they are, and where each goes."""

from __future__ import annotations

import glob
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hatch_mar.project.document import KeyPath, dig, render
from hatch_mar.project.packages import LEFT_OUT, is_environment, leads_back, walk
from hatch_mar.project.reading import UNREADABLE
from hatch_mar.project.spec import Entry
from hatch_mar.project.table import ExtraTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatch_mar.project.reading import Reading

INDEX = "index_to_name.json"
"""TorchServe's handlers look for their labels here, at the root of the model directory."""


@dataclass(frozen=True, slots=True)
class Extras:
    """Files beside the handler, and files in the tarball."""

    plain: tuple[Entry, ...]
    packed: tuple[Entry, ...]


def resolve_extras(reading: Reading, handler: Path | None) -> Extras:
    """Return the extra files by their places; without those that have problems."""
    found: list[Entry] = []
    for key, extra in reading.entries("extra-files", reading.table.extra_files):
        found += _resolve_one(reading, extra, key)
    found = list(_once(found))
    if not any(entry.name == INDEX for entry in found):
        found += _beside(reading, handler)
    for entry in found:
        if entry.name == INDEX and isinstance(entry.source, Path):
            _check_index(reading, entry.source)
    if reading.table.extra_layout != "tarball":
        return Extras(tuple(found), ())
    return Extras(
        tuple(entry for entry in found if entry.name == INDEX),
        tuple(entry for entry in found if entry.name != INDEX),
    )


def _once(entries: list[Entry]) -> Iterator[Entry]:
    """Drop a file that two globs put at the same place."""
    seen = set()
    for entry in entries:
        if (entry.name, entry.source) not in seen:
            seen.add((entry.name, entry.source))
            yield entry


def _resolve_one(reading: Reading, extra: str | ExtraTable, key: KeyPath) -> list[Entry]:
    pattern = extra if isinstance(extra, str) else extra.from_
    where = key if isinstance(extra, str) else (*key, "from")
    place = reading.place(where, pattern)
    if place is None:
        return []
    matches = _match(reading, pattern, place)
    if not matches:
        what = "matches no file" if _is_glob(pattern, place) else reading.why_missing(pattern)
        reading.complain(where, f"'{pattern}' {what}")
        return []
    matches = [(path, base) for path, base in matches if _is_usable(reading, where, path)]
    if isinstance(extra, ExtraTable):
        return _moved(reading, extra, key, matches)
    flat = reading.table.extra_layout == "flat"
    return [
        Entry(_name(reading, path, base, flat=flat), reading.take(path), render(key))
        for path, base in matches
    ]


def _is_usable(reading: Reading, key: KeyPath, path: Path) -> bool:
    """Say whether a match is a file of the project; complain if not."""
    name = reading.relative(path)
    if not reading.is_inside(path):
        reading.complain(key, f"'{name}' leads out of the project")
        return False
    if not path.is_file():
        reading.complain(key, f"'{name}' {reading.why_missing(name)}")
        return False
    if not os.access(path, os.R_OK):
        reading.complain(key, f"'{name}' {UNREADABLE}")
        return False
    return True


def _match(reading: Reading, pattern: str, place: Path) -> list[tuple[Path, Path]]:
    """Return the files that `pattern` stands for, each with the folder that flat files drop."""
    if not _is_glob(pattern, place):
        if not place.is_dir():
            return [(place, place.parent)] if place.exists() else []
        found = dict.fromkeys(walk(place), place)
    else:
        found = dict(_expand(reading.root, pattern))
    built = reading.root / _build_directory(reading)
    if not place.is_relative_to(built):
        # What builds leave is in no archive by accident: the next build would be another one.
        found = {path: base for path, base in found.items() if not path.is_relative_to(built)}
    return sorted(found.items())


def _expand(root: Path, pattern: str) -> Iterator[tuple[Path, Path]]:
    for text in sorted(glob.glob(pattern, root_dir=root, recursive=True)):  # noqa: PTH207 - skips hidden files, as a shell does
        path = root / posixpath.normpath(text)
        around = [folder for folder in (path, *path.parents) if root in folder.parents]
        if _is_left_out(PurePosixPath(text)) or any(map(_is_dead_end, around)):
            continue
        if not path.is_dir():
            yield path, path.parent
        elif "**" not in pattern:
            yield from ((inner, path) for inner in walk(path))


def _is_dead_end(folder: Path) -> bool:
    return leads_back(folder) or is_environment(folder)


def _build_directory(reading: Reading) -> str:
    """Return where builds leave what they make, as hatchling's own settings have it."""
    directory = dig(reading.pyproject, "tool", "hatch", "build", "directory")
    return directory if isinstance(directory, str) else "dist"


def _name(reading: Reading, path: Path, base: Path, *, flat: bool) -> str:
    if path.name == INDEX:
        return INDEX
    return path.relative_to(base if flat else reading.root).as_posix()


def _moved(
    reading: Reading, extra: ExtraTable, key: KeyPath, matches: list[tuple[Path, Path]]
) -> list[Entry]:
    """Put what `from` stands for where `to` says."""
    target = posixpath.normpath(extra.to)
    if target.startswith(("/", "../")) or target == "..":
        reading.complain((*key, "to"), f"'{extra.to}' is not in the model directory")
        return []
    place = reading.root / extra.from_
    single = len(matches) == 1 and not _is_glob(extra.from_, place)
    whole = place.is_dir()
    if single and not whole and not extra.to.endswith("/") and target != ".":
        return [Entry(target, reading.take(matches[0][0]), render(key))]
    base = PurePosixPath(target)
    return [
        Entry((base / path.relative_to(folder)).as_posix(), reading.take(path), render(key))
        for path, folder in matches
    ]


def _beside(reading: Reading, handler: Path | None) -> Iterator[Entry]:
    """Yield the labels that lie beside the handler: no handler of TorchServe works without them."""
    path = (handler.parent if handler else reading.root) / INDEX
    if path.is_file() and reading.is_inside(path):
        reading.notes.append(
            f"{reading.relative(path)}: taken along, as it lies beside the handler"
        )
        yield Entry(INDEX, reading.take(path), "handler")


def _check_index(reading: Reading, path: Path) -> None:
    """Complain of labels that a handler could not read."""
    if not isinstance(reading.json(path, default={}), dict):
        reading.complain_of_file(path, "", "must be an object of class index to name")


def _is_glob(pattern: str, place: Path) -> bool:
    """Say whether `pattern` is one: a file or folder that bears that very name is meant itself."""
    return any(letter in pattern for letter in "*?[") and not os.path.lexists(place)


def _is_left_out(path: PurePosixPath) -> bool:
    return path.suffix == ".pyc" or any(
        part in LEFT_OUT or part.startswith(".") for part in path.parts
    )
