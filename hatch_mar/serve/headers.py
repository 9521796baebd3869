"""The header block of one request, held as the bytes in which it travels to the worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Self, overload

_END = "\0"
"""Ends every name and every value; a field of HTTP cannot hold it (RFC 9110, section 5.5)."""


class HeaderBlock(Sequence[tuple[str, str]]):
    """Header names and values in order, names as the client sent them.

    The pairs are made when somebody looks at them: most handlers never do. A connection that sends
    the same header block again may use the same object again, and then nothing is encoded twice.
    """

    __slots__ = ("_pairs", "blob")

    def __init__(self, blob: bytes = b"") -> None:
        """Wrap `blob`: UTF-8, each name and each value ended by a zero byte."""
        self.blob = blob
        self._pairs: tuple[tuple[str, str], ...] | None = None

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]]) -> HeaderBlock:
        """Encode `pairs`; a block is returned as it is.

        Raises:
            ValueError: a name or a value holds a zero byte.
        """
        if isinstance(pairs, HeaderBlock):
            return pairs
        text = "".join([part + _END for pair in pairs for part in pair])
        if text.count(_END) != 2 * len(pairs):
            raise ValueError("a header holds a zero byte")
        block = cls(text.encode("utf-8", "surrogatepass"))
        block._pairs = tuple(pairs)
        return block

    @classmethod
    def from_raw(cls, pairs: Iterable[tuple[bytes, bytes]]) -> Self:
        """Take headers as an HTTP parser hands them out: names and values in Latin-1.

        Raises:
            ValueError: a name or a value holds a zero byte.
        """
        parts = [part for pair in pairs for part in pair]
        blob = b"\0".join([*parts, b""]) if parts else b""
        if blob.count(b"\0") != len(parts):
            raise ValueError("a header holds a zero byte")
        return cls(blob if blob.isascii() else blob.decode("latin-1").encode())

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every (name, value), in order."""
        if self._pairs is None:
            parts = self.blob.decode("utf-8", "surrogatepass").split(_END)
            self._pairs = tuple(zip(parts[::2], parts[1::2], strict=False))
        return self._pairs

    @overload
    def __getitem__(self, index: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[str, str]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, str] | Sequence[tuple[str, str]]:
        """Return one pair, or several."""
        return self.pairs[index]

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield the pairs."""
        return iter(self.pairs)

    def __eq__(self, other: object) -> bool:
        """Compare the pairs with any sequence of pairs."""
        if isinstance(other, HeaderBlock):
            return self.blob == other.blob
        return isinstance(other, Sequence) and self.pairs == tuple(other)

    def __hash__(self) -> int:
        """Hash as the bytes do."""
        return hash(self.blob)

    def __repr__(self) -> str:
        """Show the pairs."""
        return f"HeaderBlock.of({list(self.pairs)!r})"
