"""References held against `mar.lock`: which bytes the author means, or why nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hatch_mar.archive.names import fold
from hatch_mar.errors import Problem
from hatch_mar.project.secret import conceal
from hatch_mar.project.shards import is_index
from hatch_mar.weights.lockfile import COMMAND, LOCK_NAME
from hatch_mar.weights.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hatch_mar.project.document import Origin
    from hatch_mar.weights.lockfile import Lock, LockedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A file that the archive will name, as the author wants it."""

    target: str
    """Path in the model directory."""
    source: str
    """As the author wrote it: a URI, an absolute path, or a path in the project."""
    file: Path | None = None
    """Where it is on this machine, if it is a local one; it need not be there."""
    in_project: bool = False
    """Whether it is a file of the project: nobody else finds it there, only at its mirrors."""
    mirrors: tuple[str, ...] = ()
    sha256: str | None = None
    """As the author wrote it, if so."""
    size: int | None = None
    """Likewise."""
    is_named: bool = False
    """Whether another file names it, not the author: what it names in turn is not followed."""
    in_table: bool = True
    """Whether it is in the table `weights`: there, the author can write a digest."""
    origin: Origin
    """Where the author wrote `source`."""
    digest_origin: Origin
    """Where the author wrote `sha256`, or would."""

    @property
    def places(self) -> tuple[str, ...]:
        """Where others find it, in the order in which they look."""
        return self.mirrors if self.in_project else (self.source, *self.mirrors)


def local_file(source: str) -> Path | None:
    """Return the file that `source` names if it is an absolute path or a `file:` URI."""
    if source[:7].lower() == "file://":
        return Path(unquote(urlsplit(source).path))
    return Path(source) if Path(source).is_absolute() else None


def pin(wanted: Wanted, lock: Lock) -> Reference | list[Problem]:
    """Return what the seal will hold of `wanted`, or else what is wrong."""
    locked = lock.find(wanted.target)
    problems = list(find_drift(wanted, lock))
    if problems:
        return problems
    first, *mirrors = wanted.places
    if locked is None:
        assert wanted.sha256 is not None, "else it would have drifted"
        return Reference(
            target=wanted.target,
            source=first,
            sha256=wanted.sha256,
            size=wanted.size,
            mirrors=tuple(mirrors),
        )
    return as_reference(locked, mirrors)


def as_reference(locked: LockedFile, mirrors: Sequence[str]) -> Reference:
    """Return what the seal will hold of a locked file."""
    return Reference(
        target=locked.target,
        source=locked.resolved,
        sha256=locked.sha256,
        size=locked.size,
        mirrors=tuple(mirrors),
    )


def find_drift(wanted: Wanted, lock: Lock) -> Iterator[Problem]:
    """Yield how `wanted` and its entry in the lock differ, without reading or asking anything.

    A digest and a source in pyproject.toml need no entry.
    """
    locked = lock.find(wanted.target)
    if locked is not None:
        yield from _find_differences(wanted, locked, lock)
    elif wanted.sha256 is None:
        remedy = f"run `{COMMAND}`{', or write its `sha256`' if wanted.in_table else ''}"
        what = "is not in" if lock.files else "is a reference, and there is no"
        yield problem_of(
            wanted,
            f"'{conceal(wanted.source)}' {what} {LOCK_NAME}, so nobody knows which bytes you mean; "
            f"{remedy}",
        )
    elif is_index(wanted.target):
        yield problem_of(
            wanted,
            f"'{conceal(wanted.source)}' names further files, which nobody has looked up; "
            f"run `{COMMAND}`",
        )


def _find_differences(wanted: Wanted, locked: LockedFile, lock: Lock) -> Iterator[Problem]:
    run = f"run `{COMMAND}`"
    if locked.source != wanted.source:
        yield problem_of(
            wanted,
            f"is '{conceal(wanted.source)}', but {LOCK_NAME} has '{conceal(locked.source)}' for "
            f"'{wanted.target}'; {run}",
        )
        return
    if locked.mirrors != wanted.mirrors:
        yield problem_of(wanted, f"has other mirrors than in {LOCK_NAME}; {run}")
    if wanted.sha256 not in (None, locked.sha256):
        yield Problem(
            wanted.digest_origin.file,
            wanted.digest_origin.key,
            f"is {wanted.sha256}, but {LOCK_NAME} has {locked.sha256} for '{wanted.target}'; "
            f"correct it, or {run}",
        )
    size = wanted.size if wanted.size is not None else size_here(wanted)
    if size not in (None, locked.size):
        yield problem_of(
            wanted,
            f"'{conceal(wanted.source)}' has {size} bytes, but {LOCK_NAME} has {locked.size}; "
            f"{run}",
        )
    lost = [name for name in locked.names if lock.find(name) is None]
    if lost or (is_index(locked.target) and not locked.names and not wanted.in_project):
        what = f"'{lost[0]}', which it names," if lost else "the files that it names"
        yield problem_of(wanted, f"{LOCK_NAME} lacks {what}; {run}")


def find_stale(wanted: Sequence[Wanted], lock: Lock) -> Iterator[LockedFile]:
    """Yield the entries of the lock that nothing refers to any more."""
    needed = {each.target for each in wanted}
    for each in wanted:
        locked = lock.find(each.target)
        needed.update(locked.names if locked is not None else ())
    yield from (file for file in lock.files if file.target not in needed)


def find_twins(wanted: Sequence[Wanted]) -> Iterator[Problem]:
    """Yield the files that would be where another one is, on some file system at least."""
    seen: dict[str, Wanted] = {}
    for each in wanted:
        first = seen.setdefault(fold(each.target), each)
        if first is not each:
            said = f"'{each.target}' is where '{conceal(first.source)}' goes as well"
            yield problem_of(each, f"{said}; give one of them another `target`")


def size_here(wanted: Wanted) -> int | None:
    """Return the bytes of a local file; None if it is not here."""
    try:
        return wanted.file.stat().st_size if wanted.file is not None else None
    except OSError:
        return None


def problem_of(wanted: Wanted, message: str) -> Problem:
    """Return a problem with what the author wrote as the source."""
    return Problem(wanted.origin.file, wanted.origin.key, message)
