"""A request whose head is the last one's again, byte for byte: it is not parsed again.

A client that keeps its connection sends the same head over and over. Once the parser has met one
twice, what begins with the same bytes, and has the whole body behind them, can only mean the same.
Everything else is the parser's: other heads, bodies that come in pieces or in chunks.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

from hatch_mar.api.plain import PlainProtocol

if TYPE_CHECKING:
    from hatch_mar.api.exchange import Head

_END_OF_HEAD = b"\r\n\r\n"
_SMALL = 1 << 14
"""Bytes of a body that are copied: Python is quicker with bytes than with views."""


class Repeat(NamedTuple):
    """A request that may come again."""

    start: bytes
    """Its head, up to and with the empty line."""
    size: int
    """How many bytes it has, with its body."""
    head: Head


def find_repeat(data: bytes, head: Head) -> Repeat | None:
    """Return what to look out for, if `data` is one request and no more; `head` is its last one's.

    The lengths tell: only then is the body what is behind the first empty line, and all of it.
    """
    end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
    if end + head.content_length != len(data) or head.expects_continue:
        return None
    return Repeat(data[:end], len(data), head)


class RepeatProtocol(PlainProtocol):
    """Takes requests that repeat the last one, and leaves the others to the parser."""

    def __init__(self, **uvicorn: Any) -> None:  # noqa: ANN401 - uvicorn's own arguments
        """Know no request yet; the arguments are what uvicorn gives every protocol."""
        super().__init__(**uvicorn)
        self._repeat: Repeat | None = None
        self._met_again: Head | None = None
        """The head that the parser met in the last bytes, if it was that of the request before."""

    @abstractmethod
    def takes_more(self) -> bool:
        """Tell whether another request of a known head may begin now."""

    @abstractmethod
    def take_again(self, head: Head, body: bytes | memoryview) -> None:
        """Take a whole request."""

    def feed(self, data: bytes) -> None:
        """Take `data`, the requests in it that are known without parsing them.

        Raises:
            HttpParserError: it is no HTTP.
        """
        between = not self.in_message
        known, position = self._repeat, 0
        if known is not None and between:
            start, size, head = known
            while (
                data.startswith(start, position)
                and len(data) >= position + size
                and self.takes_more()
            ):
                begin, position = position + len(start), position + size
                small = position - begin <= _SMALL
                self.take_again(head, (data if small else memoryview(data))[begin:position])
            if position == len(data):
                return
        rest = data[position:]
        super().feed(rest)
        met, self._met_again = self._met_again, None
        if met is not None and between and not self.in_message and self.takes_more():
            self._repeat = find_repeat(rest, met)
