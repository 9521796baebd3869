"""The worker's loop: takes what the door sends, answers it in batches, sends the replies.

Imports are few on purpose: what is imported here delays every model's first answer.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING

from hatch_mar.model.protocol import Response
from hatch_mar.serve import shared
from hatch_mar.serve.channel import (
    Batch,
    decode_forgotten,
    decode_requests,
    encode_pieces,
    encode_replies,
)
from hatch_mar.serve.frames import ChannelError, FrameReader, Kind, encode_json, receive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.protocol import Measured, Request, Servable
    from hatch_mar.serve.shared import SharedMemory

FLUSH_SECONDS = 0.0003
"""How long a reply may wait for company while the worker has more to do."""
_QUICK_SECONDS = 0.0001
"""Only replies of batches that have all been quicker than this lately wait for company at all."""
_LATELY = 100
"""How many batches that is."""
_SHIP_SECONDS = 0.05
"""How long the handler's measurements are gathered before they are sent."""
_PATIENCE = 0.00025
"""If the last pause was shorter than this many seconds, the worker looks out for the next request
for as long before it sleeps: waking a sleeping core takes time on both sides, most of all on a
virtual machine. A worker with less to do sleeps at once."""
_INTERRUPTION = 0.00002
"""If a look takes longer than this many seconds, somebody else has a use for the core: the worker
sleeps, and does not look out before the pause after."""
ABANDONED = 499
"""Status of the reply to a request that nobody waits for: the door only counts it."""


class DeviceLostError(Exception):
    """The process cannot use its device any more; another one can."""


class Loop:
    """Takes what the door sends, answers it in batches, sends the replies."""

    batches = 1
    """How many batches it may have begun at once."""

    def __init__(
        self,
        sock: socket.socket,
        reader: FrameReader,
        counter: memoryview,
        servable: Servable,
        *,
        batch_size: int,
    ) -> None:
        """Answer with `servable`; `counter[0]`, which the door reads, counts the requests begun."""
        self._sock = sock
        # Not `select.select`: the door's number for the socket, which is ours too, may be too high.
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        self._reader = reader
        self._counter = counter
        self._servable = servable
        self._batch_size = batch_size
        self._held: deque[tuple[int, Request]] = deque()
        self._at_hand: Sequence[tuple[int, Request]] = ()
        """The requests that may be sent pieces, with their numbers."""
        self._sending = threading.Lock()
        servable.listen(self.send_pieces)
        self._replies: list[Batch] = []
        self._wary = _LATELY
        """How many quick batches it takes until replies may wait for company."""
        self._is_more = False
        """Whether others follow the requests that came last."""
        self._stopping = False
        self._pause = 0.0
        self._is_crowded = False
        self._came = 0
        """How many requests the last frame brought: where several come at once, nobody would notice
        how soon the next ones are seen, and others could use the core."""
        self._measured: list[Measured] = []
        self._shipped = 0.0
        self._cap = servable.batch_cap
        self._uses_memory = False
        """Whether a device's memory is taken, so that there may be news of it after a batch."""

    def run(self) -> None:
        """Answer until the door says STOP, and then what is held still.

        Raises:
            DeviceLostError: the device is beyond repair; what was answered has been sent.
            EOFError: the door is gone.
            ChannelError: the door makes no sense.
        """
        while self._held or not self._stopping:
            if not self._held:
                self._flush()
                began = time.monotonic()
                self._wait_for_door(began)
                self._receive()
                self._pause = time.monotonic() - began
            self._fill()
            if self._held:
                self._answer(self._take())
        self._flush()
        self._ship()

    def _look_out(self, now: float) -> bool:
        """Look out for the door while nobody else wants the core; tell whether it has come."""
        if self._is_crowded or self._pause >= _PATIENCE or self._came > 1:
            self._is_crowded = False
            return False
        end = now + _PATIENCE
        while now < end:
            if self._poller.poll(0):
                return True
            os.sched_yield()  # whoever has work to do goes first
            last, now = now, time.monotonic()
            if now - last > _INTERRUPTION:
                self._is_crowded = True
                return False
        return False

    def send_pieces(self, pieces: Sequence[tuple[str, Response]]) -> None:
        """Send intermediate answers now; what belongs to no request at hand is dropped.

        Handlers call it from threads of their own, too.
        """
        numbers = {request.id: number for number, request in self._at_hand}
        numbered = [(numbers[ident], piece) for ident, piece in pieces if ident in numbers]
        if numbered:
            self._send(encode_pieces(numbered))

    def list_at_hand(self) -> list[str]:
        """Return the ids of the requests that the handler has."""
        return [request.id for _, request in self._at_hand]

    def _send(self, data: bytes, memories: Sequence[SharedMemory] = ()) -> None:
        with self._sending:
            sent = shared.send(self._sock, data, memories) if memories else 0
            self._sock.sendall(memoryview(data)[sent:] if sent else data)

    def _forget(self, numbers: Sequence[int]) -> None:
        """Hear that nobody waits for some requests: those not begun are answered with nothing."""
        for item in [item for item in self._held if item[0] in numbers]:
            self._held.remove(item)
            self._counter[0] += 1
            reply = Response(ABANDONED, b"")
            self._replies.append(Batch([item[0]], [reply], time.monotonic(), 0))

    def _wait_for_door(self, began: float) -> None:
        """Look out for the door, if it was quick lately; then send what the handler measured."""
        if self._look_out(began):
            return
        self._measured += self._servable.drain_metrics()
        news = self._measured or self._uses_memory
        if news and not self._poller.poll(_SHIP_SECONDS * 1000):
            self._ship()

    def _fill(self) -> None:
        """Receive what is there, until it is a batch; wait for what is on its way already.

        Requests that left the door together are one batch also where they are large: the first of
        them must not be answered alone because the socket could not hold the others.
        """
        while len(self._held) < self._batch_size:
            if self._held and (self._is_more or self._reader.is_within):
                self._receive()
            elif not self._receive(socket.MSG_DONTWAIT):
                return

    def _receive(self, flags: int = 0) -> bool:
        """Receive once; tell whether there was anything."""
        try:
            frames = receive(self._sock, self._reader, flags)
        except BlockingIOError:
            return False
        for frame in frames:
            if frame.kind is Kind.PREDICT or frame.kind is Kind.MORE:
                self._is_more = frame.kind is Kind.MORE
                requests = decode_requests(frame.payload, self._reader.take_shared)
                self._came = len(requests)
                self._held.extend(requests)
            elif frame.kind is Kind.STOP:
                self._stopping = True
            elif frame.kind is Kind.FORGET:
                self._forget(decode_forgotten(frame.payload))
            else:
                raise ChannelError(f"the door sent {frame.kind.name}")
        return True

    def _take(self) -> list[tuple[int, Request]]:
        """Return the next batch: what is held, at most what fits; a describe goes alone."""
        held = self._held
        batch = [held.popleft()]
        if self._batch_size > 1 and not batch[0][1].describe:
            limit = min(self._batch_size, self._servable.batch_cap)
            while held and len(batch) < limit and not held[0][1].describe:
                batch.append(held.popleft())
        return batch

    def _answer(self, batch: list[tuple[int, Request]]) -> None:
        self._counter[0] += len(batch)
        numbers, requests = zip(*batch, strict=True)
        self._at_hand = batch
        started = time.monotonic()
        try:
            responses = self._servable.predict(requests)
        except BaseException:
            # A handler that ends the process takes nobody else's answer with it.
            self._flush()
            raise
        ended = time.monotonic()
        seconds = ended - started
        self._replies.append(Batch(numbers, responses, started, seconds))
        # A finished reply must not wait for a batch that takes long. How long the next one takes
        # nobody knows, so only a handler that has been quick for many batches is trusted.
        self._wary = _LATELY if seconds > _QUICK_SECONDS else max(0, self._wary - 1)
        if self._wary or ended - self._replies[0].started > FLUSH_SECONDS:
            self._flush()
            if ended - self._shipped > _SHIP_SECONDS:
                self._ship()
        if self._servable.batch_cap != self._cap:
            self._ship()  # the door should know before it sends more
        if self._servable.device_lost:
            self._flush()
            raise DeviceLostError

    def _flush(self) -> None:
        if self._replies:
            memories: list[SharedMemory] = []
            for data in encode_replies(self._replies, memories):
                self._send(data, memories)
                memories.clear()
            self._replies.clear()

    def _ship(self) -> None:
        self._measured += self._servable.drain_metrics()
        if self._measured:
            samples = [measured.as_dict() for measured in self._measured]
            self._send(encode_json(Kind.SAMPLES, samples))
            self._measured.clear()
        report = self._servable.report_device()
        if report is not None:
            self._cap, self._uses_memory = report.batch_cap, report.memory is not None
            self._send(encode_json(Kind.DEVICE, asdict(report)))
        self._shipped = time.monotonic()
