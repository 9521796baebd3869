"""The worker's loop for `continuousBatching`: a batch that others join while it runs.

The handler is called in rounds. A request takes part until its output is marked as its last
(`context.stopping_criteria`, or the header `ts_stream_next`); every output before is a piece of its
answer. After its first round it has no headers and no parts any more: the handler has kept what it
needs, under the request's id.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from hatch_mar.model.protocol import Request, Response
from hatch_mar.serve.channel import Batch
from hatch_mar.serve.worker.loop import ABANDONED, DeviceLostError, Loop

if TYPE_CHECKING:
    from collections.abc import Sequence


class RoundsLoop(Loop):
    """Answers whom it holds in rounds, at most `batch_size` at a time."""

    _running: dict[int, tuple[Request, float]]
    """Who takes part in the next round, by number, and since when."""

    def run(self) -> None:
        """Answer until the door says STOP; see `Loop.run`."""
        self._running = {}
        while self._held or self._running or not self._stopping:
            if self._running:
                self._receive(socket.MSG_DONTWAIT)
            elif not self._held:
                self._wait_for_door(time.monotonic())
                self._receive()
            self._join()
            if self._running:
                self._answer_round()
        self._ship()

    def _join(self) -> None:
        """Let those who wait take part; a describe goes alone."""
        now = time.monotonic()
        limit = min(self._batch_size, self._servable.batch_cap)
        while self._held and len(self._running) < limit:
            if self._running and self._held[0][1].describe:
                break
            number, request = self._held.popleft()
            self._counter[0] += 1
            self._running[number] = request, now
            if request.describe:
                break

    def _answer_round(self) -> None:
        numbers = list(self._running)
        requests = [request for request, _ in self._running.values()]
        self._at_hand = list(zip(numbers, requests, strict=True))
        began = time.monotonic()
        responses = self._servable.predict(requests)
        seconds = time.monotonic() - began
        pieces = []
        for number, request, response in zip(numbers, requests, responses, strict=True):
            if response.error or request.describe or not response.announces_more:
                self._finish(number, response, seconds)
            else:
                pieces.append((request.id, response))
                again = Request(request.id, (), (), url_path=None, explain=None)
                self._running[number] = again, self._running[number][1]
        if pieces:
            self.send_pieces(pieces)
        self._flush()
        self._ship()
        if self._servable.device_lost:
            raise DeviceLostError

    def _finish(self, number: int, response: Response, seconds: float) -> None:
        _, since = self._running.pop(number)
        self._replies.append(Batch([number], [response], since, seconds))

    def _forget(self, numbers: Sequence[int]) -> None:
        """Let those who are gone take no further part."""
        super()._forget(numbers)
        for number in numbers:
            if number in self._running:
                self._finish(number, Response(ABANDONED, b""), 0)
