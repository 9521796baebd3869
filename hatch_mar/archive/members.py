"""The files of an archive, whatever holds them."""

from __future__ import annotations

import io
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from hatch_mar.archive.names import NameLedger
from hatch_mar.errors import ArchiveError, UnsafeArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_MEMBERS = 10_000
"""More members than this are a mistake or an attack."""
LITTER = {"__pycache__", "__MACOSX", ".git"}
"""Directories that tools drop beside the files of a model: pip compiles what it installs."""


class Members(Protocol):
    """What a kind of archive has to offer; `Archive` does the rest.

    Names are safe (`names.find_flaw`) and do not collide. `open` gives the bytes as they are
    stored: whether they are the right ones is the seal's business.
    """

    warnings: list[str]
    """What was shrugged at."""

    def names(self) -> list[str]:
        """Return the names, in the order in which they are best read."""
        ...

    def size(self, name: str) -> int:
        """Return the size in bytes; `KeyError` if there is no such member."""
        ...

    def executable(self, name: str) -> bool:
        """Say whether the file's owner may execute it."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a member for reading."""
        ...

    def file(self, name: str) -> Path | None:
        """Return the file that is the member; None if it is packed in another."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


@contextmanager
def reading(where: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong in the block into an `ArchiveError` that starts with `where`."""
    try:
        yield
    except ArchiveError:
        raise
    # The standard library's readers raise whatever a crafted header makes them stumble over:
    # struct.error, OverflowError, AttributeError, NotImplementedError, zlib.error, and others.
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        reason = str(reason) or type(error).__name__
        raise ArchiveError(f"{where}: cannot be read: {reason}") from error


class GuardedReader(io.RawIOBase):
    """A stream whose every failure is an `ArchiveError`, an end before its time among them."""

    def __init__(self, raw: BinaryIO, where: str, size: int) -> None:
        """Read the `size` bytes of `raw`; messages start with `where`."""
        self._raw = raw
        self._where = where
        self._left = size

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill `buffer` as far as one read goes."""
        view = memoryview(cast("bytearray", buffer)).cast("B")
        with reading(self._where):
            data = self._raw.read(len(view))
        self._left -= len(data)
        if self._left < 0 or (self._left > 0 and len(view) > 0 and not data):
            raise ArchiveError(f"{self._where}: its size is not what was announced")
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the stream below too."""
        self._raw.close()
        super().close()


def guarded(raw: BinaryIO, where: str, size: int) -> BinaryIO:
    """Wrap `raw` so that it only ever raises `ArchiveError`, also when it has not `size` bytes."""
    return io.BufferedReader(GuardedReader(raw, where, size), 1 << 16)


class FileMembers:
    """Members that are files, or bytes, of their own: a directory, an editable installation."""

    def __init__(self, where: str | Path, members: Mapping[str, Path | bytes]) -> None:
        """Take `members` by name; `where` is what messages call the whole.

        Raises:
            UnsafeArchiveError: an unsafe name, or two that collide.
        """
        self.warnings: list[str] = []
        self._where = where
        self._members = dict(sorted(members.items()))
        ledger = NameLedger(str(where))
        for name in self._members:
            ledger.add(name)

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Return the size in bytes."""
        source = self._members[name]
        if isinstance(source, bytes):
            return len(source)
        with reading(source):
            return source.stat().st_size

    def executable(self, name: str) -> bool:
        """Say whether the file's owner may execute it."""
        source = self._members[name]
        if isinstance(source, bytes):
            return False
        with reading(source):
            return bool(source.stat().st_mode & 0o100)

    def open(self, name: str) -> BinaryIO:
        """Open a member for reading."""
        source = self._members[name]
        if isinstance(source, bytes):
            return io.BytesIO(source)
        with reading(source):
            file = cast("BinaryIO", source.open("rb", buffering=0))
            return guarded(file, str(source), os.fstat(file.fileno()).st_size)

    def file(self, name: str) -> Path | None:
        """Return the file; None for bytes."""
        source = self._members[name]
        return None if isinstance(source, bytes) else source

    def close(self) -> None:
        """Nothing is open."""


def list_directory(root: Path) -> dict[str, Path]:
    """Return the files below `root` by member name.

    Raises:
        UnsafeArchiveError: more than `MAX_MEMBERS` files, a link that leaves `root` or leads to a
            directory, or a device.
        ArchiveError: a directory cannot be read.
    """
    found: dict[str, Path] = {}
    inside = root.resolve()
    for directory, subdirectories, files in os.walk(root, onerror=_raise):
        subdirectories[:] = [name for name in subdirectories if name not in LITTER]
        linked = [name for name in subdirectories if Path(directory, name).is_symlink()]
        for path in (Path(directory, name) for name in files + linked):
            if not path.is_file():
                raise UnsafeArchiveError(f"{path}: not a file: a device, or a link to a directory")
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise UnsafeArchiveError(f"{path}: a link that leaves the directory")
            found[path.relative_to(root).as_posix()] = path
            if len(found) > MAX_MEMBERS:
                raise UnsafeArchiveError(f"{root}: more than {MAX_MEMBERS} files")
    return found


def _raise(error: OSError) -> None:
    raise ArchiveError(f"{error.filename}: cannot be read: {error.strerror}") from error
