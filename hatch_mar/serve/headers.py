"""The header block of one request, held as the bytes in which it travels to the worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf, nan
from typing import TYPE_CHECKING, Self, overload

if TYPE_CHECKING:
    from hatch_mar.serve.packing import Cover

DEADLINE_HEADER = "X-Deadline-Ms"
"""With it a client says for how many milliseconds from now on an answer is of use to it."""
_DEADLINE = DEADLINE_HEADER.lower().encode()
_END = "\0"
"""Ends every name and every value; a field of HTTP cannot hold it (RFC 9110, section 5.5)."""


class HeaderBlock(Sequence[tuple[str, str]]):
    """Header names and values in order, names as the client sent them.

    The pairs are made when somebody looks at them: most handlers never do. A connection that sends
    the same header block again may use the same object again, and then nothing is encoded twice.
    """

    __slots__ = ("_pairs", "_patience", "blob", "cover")

    def __init__(self, blob: bytes = b"") -> None:
        """Wrap `blob`: UTF-8, each name and each value ended by a zero byte."""
        self.blob = blob
        self._pairs: tuple[tuple[str, str], ...] | None = None
        self._patience: float | None = None
        self.cover: Cover | None = None
        """What the last request with these headers was packed in."""

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

    @property
    def patience(self) -> float:
        """The seconds for which the client waits, as `DEADLINE_HEADER` has it; else infinity.

        Raises:
            ValueError: the header is there, and says nothing sensible.
        """
        if self._patience is None:
            self._patience = self._read_patience() if _DEADLINE in self.blob.lower() else inf
        return self._patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        """Note what a client has said in another way."""
        self._patience = seconds

    def _read_patience(self) -> float:
        name = DEADLINE_HEADER.lower()
        values = [value for key, value in self.pairs if key.lower() == name]
        if not values:  # it was part of something else
            return inf
        try:
            milliseconds = float(values[-1])
        except ValueError:
            milliseconds = nan
        if not 0 < milliseconds < inf:
            raise ValueError(
                f"{DEADLINE_HEADER}: must be a number of milliseconds above 0, not {values[-1]!r}"
            )
        return milliseconds / 1000

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
