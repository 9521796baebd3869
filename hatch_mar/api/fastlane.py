"""The fast lane: predictions answered in the server's own protocol, without ASGI.

uvicorn's protocol over httptools reads the connection. A request that predicts becomes an
`Exchange`, goes to `Service.submit`, and its answer is written from the callback: no task, no
scope, no event per request. Everything else goes to the ASGI application as if this class were not
here.

Answers leave in the order in which requests came. An `Exchange` stands in for uvicorn's own request
cycle (`self.cycle`), so that an ASGI request behind it on the same connection waits in uvicorn's
own queue, and a prediction behind an ASGI request goes through that queue too.
"""

from __future__ import annotations

import logging
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

import httptools

from hatch_mar.api.answers import CONTINUE, TOO_LARGE, answer_error
from hatch_mar.api.exchange import Exchange, Head, House
from hatch_mar.api.lane import StreamGuard, reset
from hatch_mar.api.pouring import pour
from hatch_mar.api.repeat import RepeatProtocol
from hatch_mar.api.submission import submit
from hatch_mar.api.targets import Target, find_target_of
from hatch_mar.errors import BadRequestError, RequestError

if TYPE_CHECKING:
    import asyncio

    from hatch_mar.api.lane import Lane

logger = logging.getLogger("hatch_mar.api")

_MAX_PIPELINED = 64
"""Requests of one connection that may be in flight before we stop reading from it."""
_MAX_HEAD = 65_536
"""Bytes of a head, after its first piece, that we read before we take it for an attack."""
_FAREWELL = 0.05
"""Seconds that an idle connection is kept when the server stops: a request may be on its way."""
_LINGER = 2.0
"""Seconds in which a client may still read the answer to a body that we refused."""


class FastLane(RepeatProtocol):
    """One connection."""

    cycle: Any
    """The latest request: an `Exchange`, or uvicorn's own; None before the first."""

    def __init__(self, lane: Lane, **uvicorn: Any) -> None:  # noqa: ANN401 - uvicorn's own arguments
        """Serve `lane`; the rest is what uvicorn gives every protocol."""
        super().__init__(**uvicorn)
        self._lane = lane
        more = "" if lane.cors is None else lane.cors.lines
        self.house = House(response_limit=lane.max_response_size, more=more)
        self._guard = StreamGuard(lane, self.loop, self._cut_off)
        self._access_log = lane.access_log
        self._count_response = lane.service.metrics.count_response
        self._idle_timeout = lane.idle_timeout
        self._in_flight: deque[Exchange] = deque()
        """In the order of their requests; the first one's answer is the next to leave."""
        self._receiving: Exchange | None = None
        """The one whose body is still to come."""
        self._deaf = False
        """Whether the last answer of this connection is decided: what follows is not read."""
        self._leaving = False
        """Whether the server stops: the next answer is the last one."""
        self._head: Head | None = None
        self._used = 0.0
        self._pieces = self._pieces_then = 0
        """Pieces of bodies, now and when we last looked for a body that comes no more."""

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, with the idle timer running: a client may not connect and say nothing for ever."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._used = monotonic()
        self._watch_idle(self._idle_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take back what is in flight: nobody is there to read the answers."""
        self._deaf = True
        self._guard.release()
        self._drop_in_flight()
        if isinstance(self.cycle, Exchange):
            self.cycle = None
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse `data`; the callbacks below do the rest."""
        if self._deaf:
            return
        raw = self._raw
        try:
            self.feed(data)
        except httptools.HttpParserCallbackError:
            logger.exception("%s: closed", self.client)
            self.transport.close()
            return
        except httptools.HttpParserError as error:
            self._refuse_garbage(error)
        if self._in_head and self._raw is raw and not self._deaf:
            self._head_size += len(data)
            if self._head_size > _MAX_HEAD:
                self._refuse(BadRequestError("Request head is too long.", status=431))

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read its answers."""
        super().pause_writing()
        self._breathe()
        if self._in_flight and self._in_flight[0].streams and self._in_flight[0].job is not None:
            self._guard.hold(self._in_flight[0].job)

    def resume_writing(self) -> None:
        """Read again."""
        super().resume_writing()
        self._breathe()
        self._guard.release()
        if self._in_flight and self._in_flight[0].ready:
            self.send_ready(self._in_flight[0])

    def _cut_off(self) -> None:
        logger.warning("%s: cut off, it does not read its stream", self.client)
        self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if nothing was asked of it for too long."""
        if self.transport.is_closing():
            return
        busy = not self._is_idle()
        if busy and self._is_stalled():
            self._refuse(BadRequestError("The request's body has not come.", status=408))
        rest = self._idle_timeout - (monotonic() - self._used)
        if busy or rest > 0:
            self._watch_idle(self._idle_timeout if busy else rest)
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """Answer what was asked, and close; the server calls this when it stops."""
        self._leaving = True
        if self._is_idle():
            self.loop.call_later(_FAREWELL, self._close_if_idle)
        else:
            self.cycle.keep_alive = False

    # What the parser calls

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._receiving = None

    def on_headers_complete(self) -> None:
        """Choose the lane."""
        self._in_head = False
        if self._deaf or self.offers_upgrade():
            return
        if self.asks_for_tunnel():
            self._refuse(BadRequestError("CONNECT is for proxies, and this is none."))
            return
        cycle = self.cycle
        alone = cycle is None or cycle.response_complete
        if isinstance(cycle, Exchange) and not (alone or cycle.keep_alive):
            self._deaf = True  # after the last answer of a connection nothing is read
            return
        if alone or isinstance(cycle, Exchange):
            head = self._read_head()
            if head is not None:
                self._begin(head)
                return
        self._hand_to_uvicorn()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._pieces += 1
        exchange = self._receiving
        if exchange is not None:
            if exchange.add_body(body) > self._lane.max_request_size:
                self._refuse_size(exchange)
        elif not self._deaf:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Submit the request."""
        self.in_message = False
        exchange = self._receiving
        if exchange is not None:
            self._receiving = None
            exchange.end_body()
            submit(self._lane, exchange)
        elif not self._deaf:
            super().on_message_complete()

    # What repeats the last request

    def takes_more(self) -> bool:
        """Tell whether another request may begin here, behind an answer that is not the last."""
        cycle = self.cycle
        if self._deaf or cycle is None:
            return False
        return cycle.response_complete or (isinstance(cycle, Exchange) and cycle.keep_alive)

    def take_again(self, head: Head, body: bytes | memoryview) -> None:
        """Submit a request with the last one's head."""
        exchange = self._open(head, keep_alive=not self._leaving)
        exchange.body = body
        submit(self._lane, exchange)
        if len(self._in_flight) >= _MAX_PIPELINED:
            self._breathe()

    # The lane

    def _read_head(self) -> Head | None:
        """Return the head of a request that the lane takes: the last one if it is equal."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        head = self._head
        if (
            head is not None
            and head.url == self.url
            and head.raw == self._raw
            and head.method == method
            and head.version == version
        ):
            self._met_again = head
            return head
        if not self._lane.predicts or method == b"OPTIONS":
            return None
        target = find_target_of(self.url)
        if target is None:
            return None
        self._head = Head(method, self.url, version, self._raw, target=target, client=self.client)
        return self._head

    def _open(self, head: Head, *, keep_alive: bool) -> Exchange:
        exchange = Exchange(head, self, keep_alive=keep_alive, started=monotonic())
        self._in_flight.append(exchange)
        self.cycle = exchange
        return exchange

    def _begin(self, head: Head) -> None:
        keep_alive = self.parser.should_keep_alive() and not self._leaving
        self._receiving = exchange = self._open(head, keep_alive=keep_alive)
        if head.content_length > self._lane.max_request_size:
            self._refuse_size(exchange)
        elif head.expects_continue and len(self._in_flight) == 1:
            self.transport.write(CONTINUE)
        if len(self._in_flight) >= _MAX_PIPELINED:
            self._breathe()

    def send_ready(self, exchange: Exchange) -> None:
        """Write every answer whose turn has come, and what there is of the next one."""
        in_flight = self._in_flight
        if self.transport.is_closing():
            return
        if not in_flight[0].ready:
            self._feed(exchange)
            return
        while in_flight and in_flight[0].ready:
            exchange = in_flight[0]
            if not pour(exchange, self.transport, self.flow):
                return  # the client is slower than we are
            in_flight.popleft()
            self._note(exchange)
            if not exchange.keep_alive:
                self._end()
                return
        if in_flight or self.pipeline or self.flow.read_paused:
            self._go_on()

    def _feed(self, exchange: Exchange) -> None:
        """Write the pieces that a stream has so far, if it is its turn."""
        if exchange is not self._in_flight[0]:
            # Those before it are slow, and nobody pipelines streams: they must not fill the memory.
            if sum(map(len, exchange.output)) > self._lane.max_response_size and exchange.streams:
                self.transport.abort()
        elif exchange.streams:
            pieces, exchange.output = exchange.output, []
            self.transport.writelines(pieces)

    def _note(self, exchange: Exchange) -> None:
        """Note that all of an answer was written."""
        if exchange.broken:
            if exchange.job is not None:
                self._lane.service.cancel(exchange.job)
            if not exchange.head.knows_chunks:
                reset(self.transport)
        exchange.response_complete = True
        exchange.output = ()
        self._used = now = monotonic()
        status, log = exchange.status, self._access_log
        self._count_response(status)
        if log is not None:
            log.add(exchange.head.log_entry, status, now - exchange.started, exchange.request_id)

    def _go_on(self) -> None:
        """Let what waited behind the answers just written have its turn."""
        if self._in_flight:
            self._feed(first := self._in_flight[0])
            if first is self._receiving and first.head.expects_continue and not first.body:
                self.transport.write(CONTINUE)
        elif self.pipeline:
            self.on_response_complete()
        if self.flow.read_paused:
            self._breathe()

    def _end(self) -> None:
        """Close after the answer just written; requests behind it are taken back."""
        if (self._deaf or self._in_flight) and self.transport.can_write_eof():
            # The client may be in the middle of a body that we refused, or of sending requests
            # ahead. Closing now would reset the connection, and take answers that are on their way
            # out of the client's hands (RFC 9112, section 9.6).
            self.transport.write_eof()
            self.loop.call_later(_LINGER, self.transport.close)
        else:
            self.transport.close()
        self._deaf = True
        self._drop_in_flight()

    def _drop_in_flight(self) -> None:
        for exchange in self._in_flight:
            exchange.response_complete = True
            if exchange.job is not None and not exchange.ready:
                self._lane.service.cancel(exchange.job)
        self._in_flight.clear()
        self._receiving = None

    def _refuse_size(self, exchange: Exchange) -> None:
        self._deaf = True
        self._receiving = None
        exchange.keep_alive = False
        exchange.send(413, TOO_LARGE, b"")

    def _refuse_garbage(self, error: Exception) -> None:
        logger.warning("%s: not HTTP: %s", self.client, error)
        self._refuse(BadRequestError("Invalid HTTP message."))

    def _refuse(self, error: RequestError) -> None:
        """Answer `error` to what is no request, after the answers that are still due."""
        cycle = self.cycle
        if not (cycle is None or cycle.response_complete or isinstance(cycle, Exchange)):
            # Nothing can be said behind an answer that uvicorn still owes. It is the last one.
            self._deaf = True
            cycle.keep_alive = False
            if cycle.more_body:
                self.transport.close()
            return
        exchange = self._receiving
        if exchange is None:
            self._head = None
            head = Head(b"", b"", "1.1", [], target=Target(model=None), client=self.client)
            exchange = self._open(head, keep_alive=False)
        self._deaf = True
        self._receiving = None
        exchange.answer(answer_error(error))

    def _hand_to_uvicorn(self) -> None:
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    # Keeping the connection in hand

    def _breathe(self) -> None:
        """Read only while the client reads, and while not too much of it is in flight."""
        full = len(self._in_flight) >= _MAX_PIPELINED or bool(self.pipeline)
        if full or self.flow.write_paused:
            self.flow.pause_reading()
        else:
            self.flow.resume_reading()

    def _is_idle(self) -> bool:
        return not self._in_flight and (self.cycle is None or self.cycle.response_complete)

    def _is_stalled(self) -> bool:
        """Tell whether a body is due, and nothing of it has come since the last call."""
        then, self._pieces_then = self._pieces_then, self._pieces
        if self._in_flight:
            due = self._in_flight[0] is self._receiving
        else:
            due = self.cycle.more_body and not self.pipeline
        return due and then == self._pieces and not self.flow.read_paused

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()

    def _watch_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )
