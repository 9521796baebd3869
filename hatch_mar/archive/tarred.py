"""Members of a tar file, compressed or not: a `.tar.gz` archive, a tarball of extra files."""

from __future__ import annotations

import gzip
import tarfile
from math import inf
from typing import TYPE_CHECKING, BinaryIO, cast

from hatch_mar.archive.manifest import MANIFEST_NAME
from hatch_mar.archive.members import MAX_MEMBERS, guarded, reading
from hatch_mar.archive.names import NameLedger
from hatch_mar.errors import ArchiveError, UnsafeArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = tarfile.BLOCKSIZE
LARGEST_HEADER = 1 << 20
"""Bytes of one extended header. tarfile reads it whole, and gzip makes gigabytes of nothing."""
LARGEST_TAIL = 1 << 24
"""Bytes of padding after the last member: GNU tar's default is 10 KiB."""
MODERATE = 16 << 30
"""Bytes that a gzip of any size may unpack to."""
MODERATE_RATIO = 100
"""How many times its own size a gzip may unpack to beyond that. To list it is to unpack it, so its
size has to say how long that takes; a zip is listed at once, and may hold zeros as it likes."""


class TarMembers:
    """The members of a tar. Reading them in the order of `names` reads the file once."""

    def __init__(self, path: Path, *, strip: bool = False) -> None:
        """Open `path` and read all its headers.

        With `strip`, the first component of every name goes, as TorchServe does it; not so where
        the manifest shows that there is none to strip.

        Raises:
            ArchiveError: it is no tar, truncated, or broken.
            UnsafeArchiveError: it holds what no archive should.
        """
        self.warnings: list[str] = []
        self._path = path
        with reading(path):
            self._file = _open(path)
        try:
            with reading(path):
                self._tar = tarfile.TarFile(fileobj=cast("BinaryIO", self._file))
                self._entries = self._index(strip=strip)
        except BaseException:
            self._file.close()
            raise

    def names(self) -> list[str]:
        """Return the names in the order of the data."""
        return list(self._entries)

    def size(self, name: str) -> int:
        """Return the size in bytes."""
        return self._entries[name].size

    def executable(self, name: str) -> bool:
        """Say whether the file's owner may execute it."""
        return bool(self._entries[name].mode & 0o100)

    def open(self, name: str) -> BinaryIO:
        """Open a member for reading."""
        where = f"{self._path}: {name}"
        with reading(where):
            entry = self._entries[name]
            return guarded(cast("BinaryIO", self._tar.extractfile(entry)), where, entry.size)

    def file(self, name: str) -> Path | None:
        """Return None: the members are packed."""
        del name
        return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _index(self, *, strip: bool) -> dict[str, tarfile.TarInfo]:
        entries = list(self._scan())
        names = [_normalise(entry.name) for entry in entries]
        if strip and MANIFEST_NAME not in names:
            names = [
                name.partition("/")[2] or ("" if entry.isdir() else name)
                for name, entry in zip(names, entries, strict=True)
            ]
        found: dict[str, tarfile.TarInfo] = {}
        ledger = NameLedger(str(self._path))
        for name, entry in zip(names, entries, strict=True):
            if not entry.isdir():
                ledger.add(name)
                found[name] = entry
            elif name not in {"", "."}:
                ledger.add_directory(name)
        return found

    def _scan(self) -> Iterator[tarfile.TarInfo]:
        count = 0
        while (entry := self._tar.next()) is not None:
            count += 1
            if count > MAX_MEMBERS:
                raise UnsafeArchiveError(f"{self._path}: more than {MAX_MEMBERS} members")
            where = f"{self._path}: member {entry.name!r}"
            if entry.size < 0:
                raise UnsafeArchiveError(f"{where} has a negative size")
            if not (entry.isreg() or entry.isdir()) or _is_sparse(entry):
                raise UnsafeArchiveError(f"{where} is a link, a device or a sparse file")
            if entry.isdir() and entry.size:
                raise UnsafeArchiveError(f"{where} is a directory with bytes in it")
            yield entry
        self._check_end()

    def _check_end(self) -> None:
        """Make sure that the listing ended with the archive: tarfile stops at rubbish too."""
        self._file.seek(self._tar.offset)
        tail = 0
        while data := self._file.read(LARGEST_HEADER):
            tail += len(data)
            if data.strip(b"\0") or tail > LARGEST_TAIL:
                raise ArchiveError(f"{self._path}: damaged after the last member that can be read")
        if tail < BLOCK:
            raise ArchiveError(f"{self._path}: truncated: the end-of-archive marker is missing")


class _Bounded:
    """A tar's bytes, for tarfile, which would otherwise read and unpack whatever a header says."""

    def __init__(self, file: BinaryIO, path: Path, limit: float = inf) -> None:
        self._file = file
        self._path = path
        self._limit = limit

    def read(self, count: int) -> bytes:
        if count > LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {count} bytes")
        self._check(self._file.tell() + count)
        return self._file.read(count)

    def seek(self, offset: int) -> int:
        self._check(offset)
        return self._file.seek(offset)

    def _check(self, offset: int) -> None:
        if offset > self._limit + LARGEST_TAIL:
            raise UnsafeArchiveError(
                f"{self._path}: unpacks to more than {self._limit:,} bytes, "
                f"{MODERATE_RATIO} times its size; pack it as a zip (.mar)"
            )

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def _open(path: Path) -> _Bounded:
    if is_gzip(path):
        limit = max(MODERATE, MODERATE_RATIO * path.stat().st_size)
        return _Bounded(cast("BinaryIO", gzip.open(path, "rb")), path, limit)
    return _Bounded(path.open("rb"), path)


def is_gzip(path: Path) -> bool:
    """Say whether the file at `path` starts as gzip files do."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _is_sparse(entry: tarfile.TarInfo) -> bool:
    """Say whether a member has holes, or the names and sizes that GNU tar gives to such members."""
    return entry.issparse() or any(key.startswith("GNU.sparse.") for key in entry.pax_headers)


def _normalise(name: str) -> str:
    """Drop the `./` that `tar -C directory .` writes."""
    while name.startswith("./"):
        name = name[2:]
    return name
