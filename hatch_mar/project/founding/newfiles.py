"""Files of a new project: all of them, or none, and never over one that is there."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from hatch_mar.errors import HatchMarError, Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Source: TypeAlias = "str | bytes | Path | Callable[[], BinaryIO]"
"""Text, bytes, a file to copy, or what opens one."""


@contextmanager
def new_files(root: Path, files: Mapping[str, Source]) -> Iterator[None]:
    """Write `files`, by their paths below `root`. If the block fails, they are gone again.

    Raises:
        ProblemsError: something is at the place of one of them, or of `root`; all are named.
        HatchMarError: they cannot be written. Nothing that was made is left.
    """
    with _undoing() as made:
        try:
            _write(root, files, made)
        except OSError as error:
            where = error.filename or root
            raise HatchMarError(f"{where}: cannot be written: {error.strerror or error}") from error
        yield


def _write(root: Path, files: Mapping[str, Source], made: list[Path]) -> None:
    conflicts = list(_conflicts(root, files))
    if conflicts:
        raise ProblemsError(conflicts)
    for name, source in files.items():
        path = root / name
        _make_parents(path, made)
        with path.open("xb") as file:
            made.append(path)
            _fill(file, source)


def _conflicts(root: Path, files: Mapping[str, Source]) -> Iterator[Problem]:
    seen = set()
    for name in files:
        path = root / name
        obstacle = next(
            (each for each in reversed(path.parents) if _is_there(each) and not each.is_dir()), None
        )
        if obstacle is None and _is_there(path):
            obstacle = path
        if obstacle is not None and obstacle not in seen:
            seen.add(obstacle)
            yield Problem(str(obstacle), "", "exists, and nothing is overwritten; move it away")


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _make_parents(path: Path, made: list[Path]) -> None:
    missing = []
    for parent in path.parents:
        if parent.is_dir():
            break
        missing.append(parent)
    for parent in reversed(missing):
        parent.mkdir()
        made.append(parent)


def _fill(file: BinaryIO, source: Source) -> None:
    if isinstance(source, str):
        file.write(source.encode())
    elif isinstance(source, bytes):
        file.write(source)
    else:
        with source.open("rb") if isinstance(source, Path) else source() as original:
            shutil.copyfileobj(original, file, 1 << 20)


@contextmanager
def _undoing() -> Iterator[list[Path]]:
    """Yield a list; what is in it when the block fails is removed, the last first."""
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        for path in reversed(made):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        raise
