"""What a store gives: a source that can be opened at any offset, as often as one likes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

STALL = 60.0
"""Seconds without a byte after which a server counts as gone."""


class BusyError(ConnectionError):
    """A server that says when to come again."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        """Keep `retry_after`, in seconds from now."""
        super().__init__(message)
        self.retry_after = retry_after


class Stream(Protocol):
    """Bytes of one source, from `start` on. Raises `OSError` as `hatch_mar.weights.stores` says."""

    start: int
    """Offset of the first byte: what was asked for, or 0 where the store cannot do that."""
    total: int | None
    """Bytes of the whole source, if the store knows."""
    version: str | None
    """What changes when the source's bytes do (a strong ETag, a generation), if the store knows."""

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes; none at the end."""
        ...

    def close(self) -> None:
        """Let go of it; also from another thread, and twice. A read that waits ends soon then."""
        ...


class Source(Protocol):
    """One file in a store."""

    def open(self, start: int = 0, stop: int | None = None) -> Stream:
        """Return the bytes from `start` on, up to `stop` (exclusive) or the end.

        May be called from several threads at once, each of which reads its own stream.
        """
        ...

    def close(self) -> None:
        """Let go of connections. No stream may be read afterwards."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a store says of a source when it is asked which bytes it means just now."""

    source: str
    """The source in the form that means the same bytes for ever, as far as its store has one."""
    size: int | None
    """Bytes, if the store knows."""
    sha256: str | None
    """The digest that the store has recorded, if it has: 64 lower-case hex digits.

    It is the store's word. Whoever fetches the bytes hashes them all the same.
    """
