"""Deflate and CRC-32: by ISA-L where the `fast-deflate` extra is installed, else by zlib.

ISA-L's level 1 makes of weights what zlib's default level makes of them, many times faster. It is
less good at text, and small members are soon done anyway: those are zlib's, so an archive
without big members is the same bytes with and without the extra.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

try:
    from isal import isal_zlib as fastest
except ImportError:
    fastest = zlib  # type: ignore[misc]

if TYPE_CHECKING:
    from collections.abc import Callable

FAST_FROM = 1 << 20
"""Bytes of the smallest member that ISA-L compresses."""
FAST = fastest is not zlib
"""Whether ISA-L is there."""
_FAST_LEVEL = 1
_RAW = -15
"""`wbits` of a stream without header and trailer, with deflate's whole window."""

crc32: Callable[[bytes, int], int] = fastest.crc32
"""CRC-32 of the first argument, going on from the second."""


class Deflater(Protocol):
    """A stream that is being compressed."""

    def compress(self, data: bytes, /) -> bytes:
        """Take more data; return what can be written already."""
        ...

    def flush(self) -> bytes:
        """End the stream; return the rest of it."""
        ...


class Storer:
    """The stream of a member that is not compressed."""

    def compress(self, data: bytes, /) -> bytes:
        """Return `data`."""
        return data

    def flush(self) -> bytes:
        """Return nothing: nothing was kept."""
        return b""


def new_deflater(size: int) -> Deflater:
    """Return a raw deflate stream (RFC 1951) for `size` bytes, the same for the same library."""
    if not FAST or size < FAST_FROM:
        return zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, _RAW)
    return fastest.compressobj(_FAST_LEVEL, fastest.DEFLATED, _RAW)
