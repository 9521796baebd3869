"""Files and directories that appear whole or not at all.

Both are made beside their target, so that the last step is one rename within a file system, and
both vanish if anything goes wrong before it: a full disk, a Ctrl-C, a bug.
"""

from __future__ import annotations

import secrets
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from hatch_mar.archive.manifest import MANIFEST_NAME
from hatch_mar.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFIX = ".hatch-mar-"
"""How a staged file's name starts: what a killed process may leave, and nobody ever reads."""


def _beside(path: Path) -> Path:
    return path.parent / f"{PREFIX}{secrets.token_hex(8)}"


@contextmanager
def staged_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that becomes `path` when the block ends well.

    Raises:
        OSError: it cannot be written, or `path` is a directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = _beside(path)
    try:
        with staged.open("xb") as file:
            yield file
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


@contextmanager
def staged_directory(path: Path) -> Iterator[Path]:
    """Yield a new directory, mode 0700, that becomes `path` when the block ends well.

    Raises:
        OSError: it cannot be made, or `path` exists and is not an empty directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = _beside(path)
    try:
        staged.mkdir(mode=0o700)
        yield staged
        staged.rename(path)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


@contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """Yield a new directory in `parent`, mode 0700, that is gone after the block."""
    scratch = _beside(parent / "scratch")
    try:
        scratch.mkdir(mode=0o700)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def set_aside(path: Path) -> Iterator[Path]:
    """Move `path` away, and yield where: for good if the block ends well, else it comes back."""
    aside = _beside(path)
    path.rename(aside)
    try:
        yield aside
    except BaseException:
        aside.rename(path)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a directory, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def replacing(path: Path) -> Iterator[None]:
    """Set an archive aside that is a directory: no rename puts one in the place of another.

    Raises:
        ArchiveError: there is a directory at `path` that is something else.
    """
    if not path.is_dir() or not any(path.iterdir()):
        yield
        return
    if not (path / MANIFEST_NAME).is_file():
        raise ArchiveError(f"{path}: a directory that is no model archive; remove it or rename it")
    with set_aside(path):
        yield
