"""One request in the fast lane, and what its connection knows of the requests before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hatch_mar.api.access_log import describe
from hatch_mar.api.answers import (
    BODILESS,
    Answer,
    answer_response,
    render_head,
    render_plain_head,
)
from hatch_mar.api.request_ids import next_request_id
from hatch_mar.api.rows import read_single
from hatch_mar.serve import GatheredBody, HeaderBlock, Response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.api.targets import Target
    from hatch_mar.serve import Job

RawHeaders = list[tuple[bytes, bytes]]

_JOINED = 65_536
"""Bodies up to this many bytes are copied behind their head, to leave in one system call."""


class Head:
    """A request head, read once: a client that stays connected sends the same one over and over."""

    __slots__ = (
        "authorization",
        "content_length",
        "content_type",
        "expects_continue",
        "headers",
        "knows_chunks",
        "log_entry",
        "media_type",
        "method",
        "raw",
        "target",
        "url",
        "version",
    )

    def __init__(
        self,
        method: bytes,
        url: bytes,
        version: str,
        raw: RawHeaders,
        *,
        target: Target,
        client: tuple[str, int] | None,
    ) -> None:
        """Read the head; `client` is for the access log.

        Raises:
            ValueError: a header holds a zero byte.
        """
        self.method = method
        self.url = url
        self.version = version
        self.raw = raw
        self.target = target
        self.knows_chunks = version != "1.0"
        self.headers = HeaderBlock.from_raw(raw)
        line = f"{method.decode('latin-1')} {url.decode('latin-1')} HTTP/{version}"
        self.log_entry = describe(client, line)
        self.authorization = ""
        self.content_type = ""
        self.content_length = 0
        self.expects_continue = False
        for name, value in raw:
            key = name.lower()
            if key == b"content-type":
                self.content_type = value.decode("latin-1")
            elif key == b"content-length":
                self.content_length = int(value)
            elif key == b"authorization":
                self.authorization = self.authorization or value.decode("latin-1")
            elif key == b"expect":
                self.expects_continue = value.lower() == b"100-continue"
        self.media_type = read_single(self.content_type)
        """None where the body is a form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What holds for every answer of a listener."""

    response_limit: int = 0
    """Bytes of a prediction, or of one piece of it; more is an error."""
    more: str = ""
    """Header lines that the operator wants on every answer."""


class Connection(Protocol):
    """What an exchange belongs to."""

    house: House

    def send_ready(self, exchange: Exchange) -> None:
        """Hear that the `output` of `exchange` has grown."""
        ...


class Exchange:
    """One request, from its head to its answer.

    uvicorn's protocol takes it for one of its own request cycles: it reads `response_complete`, and
    clears `keep_alive` when the server shuts down.
    """

    __slots__ = (
        "body",
        "broken",
        "connection",
        "gathered",
        "head",
        "job",
        "keep_alive",
        "output",
        "ready",
        "request_id",
        "response_complete",
        "started",
        "status",
        "streams",
    )

    def __init__(
        self,
        head: Head,
        connection: Connection,
        *,
        keep_alive: bool,
        started: float,
    ) -> None:
        """Begin at `started`, monotonic time."""
        self.head = head
        self.connection = connection
        self.keep_alive = keep_alive
        self.started = started
        self.request_id = next_request_id()
        self.body: bytes | bytearray | memoryview = b""
        """The first piece of it, until all has come."""
        self.gathered: GatheredBody | None = None
        self.job: Job | None = None
        self.ready = False
        """Whether the answer is known; it may still have to wait for its turn."""
        self.response_complete = False
        """Whether the answer was sent, or will never be."""
        self.status = 0
        self.output: Sequence[bytes | bytearray | memoryview] = ()
        """The whole answer, head first; of a stream, what was not written yet."""
        self.streams = False
        """Whether a piece of the answer has come already."""
        self.broken = False
        """Whether the stream has ended before its end: the client must not take it for whole."""

    def add_body(self, data: bytes) -> int:
        """Take a piece of the body; return the size so far."""
        if not self.body:
            self.body = data
            return len(data)
        if self.gathered is None:
            assert isinstance(self.body, bytes)
            self.gathered = GatheredBody(self.body)
        self.gathered.add(data)
        return self.gathered.size

    def end_body(self) -> None:
        """Hear that the body is whole."""
        if self.gathered is not None:
            self.body = self.gathered.whole()
            self.gathered = None

    def reply(self, response: Response) -> None:
        """Take the service's answer, or the last of it."""
        if self.response_complete or self.ready:
            return
        self.job = None  # which knows this method: together they would wait for the collector
        body = response.body
        size = len(body)
        house = self.connection.house
        if (
            response.status == 200  # noqa: PLR2004
            and self.keep_alive
            and size <= _JOINED
            and size <= house.response_limit
            and not (response.error or response.content_type or response.headers)
            and not response.phrase
            and self.head.method != b"HEAD"
            and not self.streams
        ):
            self.status = 200
            self.output = (render_plain_head(self.request_id, size, house.more) + body,)
            self.ready = True
            self.connection.send_ready(self)
        elif self.streams:
            self._end_stream(response)
        else:
            self.answer(answer_response(response, house.response_limit))

    def take_piece(self, piece: Response) -> None:
        """Take an intermediate answer: the first one decides status and headers."""
        if self.response_complete or self.ready:
            return
        limit = self.connection.house.response_limit
        if not self.streams:
            answer = answer_response(piece, limit)
            if answer.is_ours:
                self.answer(answer)
                return
            self._begin_stream(answer)
        elif len(piece.body) > limit:
            self.break_off()
        else:
            self._add_chunk(piece.body)
        self.connection.send_ready(self)

    def break_off(self) -> None:
        """End the stream here, so that the client sees that it is not whole."""
        self.broken = self.ready = True
        self.keep_alive = False

    def _begin_stream(self, answer: Answer) -> None:
        chunked = self.head.knows_chunks
        if answer.closes or not chunked:
            self.keep_alive = False
        self.streams = True
        self.status = answer.status
        head = render_head(
            answer,
            self.request_id,
            keep_alive=self.keep_alive,
            more=self.connection.house.more,
            chunked=chunked,
        )
        self.output = [head]
        self._add_chunk(answer.body)

    def _add_chunk(self, body: bytes | bytearray | memoryview) -> None:
        """Append one chunk (RFC 9112, section 7.1); an empty one would be the last."""
        assert isinstance(self.output, list)
        if body and self.head.method != b"HEAD":
            if self.head.knows_chunks:
                body = b"".join((b"%x\r\n" % len(body), body, b"\r\n"))
            self.output.append(body)

    def _end_stream(self, last: Response) -> None:
        """Append what the handler returned in the end, if it did not fail."""
        assert isinstance(self.output, list)
        if last.error or len(last.body) > self.connection.house.response_limit:
            self.break_off()
        else:
            self._add_chunk(last.body)
            if self.head.knows_chunks and self.head.method != b"HEAD":
                self.output.append(b"0\r\n\r\n")
            self.ready = True
        self.connection.send_ready(self)

    def answer(self, answer: Answer) -> None:
        """Take any answer."""
        if answer.closes:
            self.keep_alive = False
        head = render_head(
            answer, self.request_id, keep_alive=self.keep_alive, more=self.connection.house.more
        )
        bodiless = self.head.method == b"HEAD" or answer.status in BODILESS
        self.send(answer.status, head, b"" if bodiless else answer.body)

    def send(self, status: int, head: bytes, body: bytes | bytearray | memoryview) -> None:
        """Take an answer that is bytes already."""
        self.status = status
        self.output = (head + body,) if len(body) <= _JOINED else (head, body)
        self.ready = True
        self.connection.send_ready(self)
