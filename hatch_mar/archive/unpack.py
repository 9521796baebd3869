"""An archive becomes a directory, or nothing does.

Nothing of an archive is trusted: not its names, not its sizes, not its modes. Members are copied
into a fresh directory that only its owner may enter, verified against the seal as they are copied,
and the directory gets its name last. (No fsync: a run directory does not outlive its runner, so
what a power cut leaves of one is never read.)
"""

from __future__ import annotations

import filecmp
import os
import shutil
from typing import TYPE_CHECKING, BinaryIO

from hatch_mar.archive.measure import hash_stream
from hatch_mar.archive.members import Members, reading
from hatch_mar.archive.staging import scratch_directory, staged_directory
from hatch_mar.archive.tarred import TarMembers
from hatch_mar.archive.zipped import ZipMembers
from hatch_mar.errors import ArchiveError, UnsafeArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hatch_mar.archive.read import Archive

MAX_BYTES = 1 << 40
"""Bytes of all members together. Bigger models are fetched by reference."""


def unpack(archive: Archive, into: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Put the members of `archive` into the directory `into`, which is new or empty.

    Members that are files of their own are linked, the others copied. Everything is verified
    against the seal first, if there is one.

    Raises:
        ArchiveError: a member is not what the seal says or cannot be read, or the disk is full.
            Nothing is left then, and `into` is as it was.
        UnsafeArchiveError: the members are more than `max_bytes` together.
    """
    names = archive.names()
    packed = [name for name in names if archive.file(name) is None]
    try:
        with staged_directory(into) as staged:
            _check_room(archive.path, sum(map(archive.size, packed)), into.parent, max_bytes)
            for name in names:
                _place(archive, name, staged / name)
    except OSError as error:
        raise ArchiveError(f"{into}: cannot be written: {error.strerror or error}") from error


def open_extra_files(path: Path) -> Members:
    """Open the tarball `path` (tar, tar.gz or zip, by content).

    Raises:
        ArchiveError: it is none, or broken.
        UnsafeArchiveError: it holds what no archive should.
    """
    with reading(path):
        with path.open("rb") as file:
            magic = file.read(4)
        # Not by its end, as zipfile tells zips: a tar may end with a member that is one.
        is_zip = magic in {b"PK\x03\x04", b"PK\x05\x06"}
        return ZipMembers(path) if is_zip else TarMembers(path)


def unpack_extra_files(path: Path, into: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Put the files of the tarball `path` (tar, tar.gz or zip, by content) into `into`.

    A file that is there already with the same bytes stays; one with others is an error.

    Raises:
        ArchiveError: the tarball is broken, a file is in the way, or the disk is full. `into` is
            as it was then.
        UnsafeArchiveError: the tarball holds what no archive should.
    """
    members = open_extra_files(path)
    try:
        with scratch_directory(into) as scratch:
            names = members.names()
            _check_room(path, sum(map(members.size, names)), into, max_bytes)
            for name in names:
                with members.open(name) as source:
                    _copy(source, scratch / name, executable=members.executable(name))
            _merge(scratch, into, names, path)
    except OSError as error:
        raise ArchiveError(f"{into}: cannot be written: {error.strerror or error}") from error
    finally:
        members.close()


def _check_room(path: Path, size: int, directory: Path, max_bytes: int) -> None:
    if size > max_bytes:
        raise UnsafeArchiveError(f"{path}: {size} bytes unpacked, {max_bytes} are allowed")
    free = shutil.disk_usage(directory).free
    if size > free:
        raise ArchiveError(f"{path}: needs {size} bytes, but {directory} has only {free} left")


def _place(archive: Archive, name: str, target: Path) -> None:
    sealed = archive.seal.members.get(name) if archive.seal is not None else None
    file = archive.file(name)
    executable = archive.executable(name)
    with archive.open(name) as source:
        if file is None:
            found = _copy(source, target, executable=executable)
        elif sealed is not None:
            found = hash_stream(source)
        else:
            found = None
    if sealed is not None and found is not None and found != (sealed.sha256, sealed.size):
        raise ArchiveError(f"{archive.path}: {name}: is not what the seal says: damaged or altered")
    if file is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file.resolve())


def _copy(source: BinaryIO, target: Path, *, executable: bool) -> tuple[str, int]:
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(target, flags, 0o700 if executable else 0o600)
    with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
        return hash_stream(source, file)


def _merge(scratch: Path, into: Path, names: Iterable[str], path: Path) -> None:
    """Move the files from `scratch` to `into`, all or none."""
    moved: list[Path] = []
    made: list[Path] = []
    try:
        for name in names:
            target = into / name
            _refuse_links(target, into, f"{path}: {name}")
            if _is_there(target, scratch / name, f"{path}: {name}"):
                continue
            made += _make_parents(target, into)
            # A hard link, because unlike a rename it never replaces anything.
            target.hardlink_to(scratch / name)
            moved.append(target)
    except BaseException:
        for file in moved:
            file.unlink()
        for directory in reversed(made):
            directory.rmdir()
        raise


def _refuse_links(target: Path, into: Path, where: str) -> None:
    """Keep a file from going through a linked directory to who knows where."""
    for parent in target.parents:
        if parent == into:
            return
        if parent.is_symlink() and parent.is_dir():
            raise ArchiveError(f"{where}: {str(parent.relative_to(into))!r} is a link")


def _is_there(target: Path, wanted: Path, where: str) -> bool:
    """Say whether `target` is `wanted` already; something else there is an `ArchiveError`."""
    if not (target.exists() or target.is_symlink()):
        return False
    if target.is_file() and filecmp.cmp(wanted, target, shallow=False):
        return True
    raise ArchiveError(f"{where}: there is another file of that name already")


def _make_parents(target: Path, into: Path) -> list[Path]:
    """Make the directories of `target` below `into`; return those that were not there."""
    missing = []
    for parent in target.parents:
        if parent == into or parent.is_dir():
            break
        missing.append(parent)
    for parent in reversed(missing):
        parent.mkdir()
    return missing[::-1]
