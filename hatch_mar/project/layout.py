"""No two files may meet at one place in the model directory, nor at one that is not theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.archive.names import find_flaw, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from hatch_mar.project.spec import Entry

RESERVED = ("MAR-INF", ".hatch-mar")
"""Folders of the model directory that belong to the archive and to the server."""
EXAMPLES_KEY = "examples"


def distinct(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Drop entries that put the same file at the same place again: two globs may both match it."""
    return tuple({(entry.name, entry.source): entry for entry in entries}.values())


def _another_place(entry: Entry) -> str:
    place = "`target`" if entry.key.startswith("weights") else "`{ from, to }`"
    return f"give one another place ({place}) or name"


def find_collisions(
    entries: Iterable[Entry],
    relative: Callable[[Path], str],
    remedy: Callable[[Entry], str] = _another_place,
) -> Iterator[tuple[str, str]]:
    """Yield each key whose file cannot be where it is meant to be, with the reason.

    Names are compared as on a file system that ignores case and Unicode form: an archive must
    unpack on any machine. `relative` returns a source as its author would write it, `remedy` what
    to do about an entry that is second to a place.
    """
    places: dict[str, Entry] = {}
    folders: dict[str, Entry] = {}
    for entry in entries:
        flaw = find_flaw(entry.name)
        if flaw is not None:
            yield entry.key, f"'{entry.name}' {flaw}; rename it"
            continue
        folded = fold(entry.name)
        if folded.partition("/")[0] in map(fold, RESERVED) and entry.key != EXAMPLES_KEY:
            yield entry.key, f"'{entry.name}' is in a folder that is not yours; move the file"
            continue
        parents = [folded[:at] for at, letter in enumerate(folded) if letter == "/"]
        above = next((places[parent] for parent in parents if parent in places), None)
        other = places.get(folded) or folders.get(folded) or above
        if other is not None:
            first, second = _describe(entry, relative), _describe(other, relative)
            message = f"{first} collides with {second} of `{other.key}` in the model directory"
            yield entry.key, f"{message}; {remedy(entry)}"
            continue
        places[folded] = entry
        for parent in parents:
            folders.setdefault(parent, entry)


def _describe(entry: Entry, relative: Callable[[Path], str]) -> str:
    source = "" if isinstance(entry.source, bytes) else relative(entry.source)
    return f"'{entry.name}' ({source})" if source not in ("", entry.name) else f"'{entry.name}'"
