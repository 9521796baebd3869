"""What a store gives: a source that can be opened at any offset, as often as one likes."""

from __future__ import annotations

from typing import Protocol

STALL = 60.0
"""Seconds without a byte after which a server counts as gone."""


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
        """Let go of it."""
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
