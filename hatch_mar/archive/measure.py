"""Streams that are measured as they pass: sha256 and size, in one pass, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, Self

from hatch_mar.archive.tarball import CHUNK
from hatch_mar.errors import ArchiveError

if TYPE_CHECKING:
    from concurrent.futures import Future
    from types import TracebackType

Advance = Callable[[int], object]
"""Called with a number of bytes that have been dealt with since the last call."""
_WORTH_A_THREAD = CHUNK
"""Bytes below which handing a chunk to the thread costs more than hashing it."""


class Sha256:
    """A sha256 that is one chunk behind: the last one is hashed while the next is read or written.

    hashlib lets go of the interpreter's lock for chunks of this size, so that is a second core's
    work. At most two chunks are in memory.
    """

    def __init__(self) -> None:
        """Start with nothing; the thread starts with the first big chunk."""
        self.size = 0
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, "hatch-mar-sha256")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the thread."""
        self._thread.shutdown()

    def update(self, data: bytes) -> None:
        """Take the next bytes, which must not change any more."""
        self._wait()
        self.size += len(data)
        if len(data) < _WORTH_A_THREAD:
            self._hash.update(data)
        else:
            self._pending = self._thread.submit(self._hash.update, data)

    def hexdigest(self) -> str:
        """Return the digest of everything so far, 64 lower-case digits."""
        self._wait()
        return self._hash.hexdigest()

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None


class MeasuredReader:
    """A source of which size was announced: it is hashed as it is read, and held to its word."""

    def __init__(
        self,
        file: BinaryIO,
        digest: Sha256,
        *,
        size: int,
        origin: str,
        advance: Advance | None = None,
    ) -> None:
        """Read the `size` bytes of `file` into `digest` too; messages start with `origin`."""
        self._file = file
        self._digest = digest
        self._size = size
        self._origin = origin
        self._advance = advance

    def read(self, count: int = CHUNK) -> bytes:
        """Return `count` bytes, or what is left.

        Raises:
            ArchiveError: they cannot be read, or are not as many as announced.
        """
        try:
            data = self._file.read(count)
        except OSError as error:
            raise ArchiveError(f"{self._origin}: cannot be read: {error.strerror}") from error
        self._digest.update(data)
        ended = len(data) < count
        if self._digest.size > self._size or (ended and self._digest.size < self._size):
            raise ArchiveError(f"{self._origin}: changed while it was being read; try again")
        if self._advance is not None:
            self._advance(len(data))
        return data

    def expect_end(self) -> None:
        """Make sure that nothing is left: a tar stops reading at the size it announced.

        Raises:
            ArchiveError: there is more than announced.
        """
        self.read(1)


def hash_stream(
    source: BinaryIO, target: BinaryIO | None = None, advance: Advance | None = None
) -> tuple[str, int]:
    """Read `source` to its end, into `target` if there is one; return sha256 and size."""
    with Sha256() as digest:
        while data := source.read(CHUNK):
            digest.update(data)
            if target is not None:
                target.write(data)
            if advance is not None:
                advance(len(data))
        return digest.hexdigest(), digest.size
