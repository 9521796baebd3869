"""The worker's loop for a model that can be taken apart: neighbouring batches overlap.

The main thread speaks with the door and has the device compute: whatever torch keeps per thread was
made on it when the model was loaded. Other threads prepare and finish batches, and wake it.
Replies leave in the order in which the requests came. What does not go through the stages (a
description, an explanation, a batch that is run again in halves) has the worker to itself.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hatch_mar.serve.channel import Batch
from hatch_mar.serve.worker.loop import DeviceLostError, Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hatch_mar.model.protocol import Request, Response
    from hatch_mar.model.stages import Stages

_SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter from another one that wants it: the device is idle
while the main thread waits. Python's default is ten times as much."""
_SHIP_MILLISECONDS = 50
"""How long there is nothing to do before the handler's measurements are sent."""


class _Begun:
    """A batch that has begun and is not answered."""

    __slots__ = ("batch", "error", "finished", "passage", "prepared", "responses", "started")

    def __init__(self, batch: list[tuple[int, Request]], passage: Any) -> None:  # noqa: ANN401
        self.batch = batch
        self.passage = passage
        """What the stages call it."""
        self.started = time.monotonic()
        self.prepared: Future[None] = Future()
        self.finished: Future[list[Response]] | None = None
        """What it will be answered, once the device was asked to compute."""
        self.error: BaseException | None = None
        """Why it has to be run again, once nothing else runs."""
        self.responses: list[Response] | None = None

    @property
    def rests(self) -> bool:
        """Whether no thread is at it, and nothing of it on the device but its input."""
        return self.prepared.done() and (self.finished is None or self.finished.done())


class PipelinedLoop(Loop):
    """Has one batch computed while the next is prepared, and the one before finished."""

    def __init__(self, *arguments: Any, stages: Stages, **options: Any) -> None:  # noqa: ANN401
        """Answer with the servable and its `stages`; see `Loop`."""
        super().__init__(*arguments, **options)
        self._stages = stages
        self.batches = stages.batches
        self._begun: deque[_Begun] = deque()
        """Oldest first."""
        self._alone: list[tuple[int, Request]] = []
        """A batch that waits until it is the only one."""
        self._ended = 0.0
        """When the last batch was answered."""

    def run(self) -> None:
        """Answer until the door says STOP; see `Loop.run`."""
        with self._threads():
            try:
                while self._held or self._alone or self._begun or not self._stopping:
                    busy = self._settle() | self._begin() | self._compute()
                    self._flush()
                    if self._servable.device_lost and not self._begun:
                        raise DeviceLostError
                    self._listen(wait=not busy)
            except (SystemExit, KeyboardInterrupt):
                self._give_back(1)
                self._flush()
                raise
        self._flush()
        self._ship()

    @contextlib.contextmanager
    def _threads(self) -> Iterator[None]:
        """Have threads that prepare and finish, and a way for them to wake this one."""
        switch = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._poller.register(self._woken, select.POLLIN)
        self._preparing = ThreadPoolExecutor(self._stages.threads, "prepare")
        self._finishing = ThreadPoolExecutor(1, "finish")
        try:
            yield
        finally:
            self._preparing.shutdown(cancel_futures=True)
            self._finishing.shutdown(cancel_futures=True)
            self._poller.unregister(self._woken)
            self._woken.close()
            self._waker.close()
            sys.setswitchinterval(switch)

    def _begin(self) -> bool:
        """Begin what is held, as far as there is room and nothing has to be alone."""
        busy = False
        while self._held and not self._alone and self._may_begin():
            batch = self._take()
            if not self._stages.admits([request for _, request in batch]):
                self._alone = batch
                break
            self._start(batch)
            busy = True
        if self._alone and not self._begun and not self._servable.device_lost:
            batch, self._alone = self._alone, []
            self._answer(batch)
            self._ended = time.monotonic()
            busy = True
        return busy

    def _may_begin(self) -> bool:
        """Tell whether one more batch may begin: one that is not full only behind one other.

        With more of those before it the rest of it would have come by the time it is computed.
        """
        count = len(self._begun)
        if self._servable.device_lost or any(one.error for one in self._begun):
            return False
        full = len(self._held) >= min(self._batch_size, self._servable.batch_cap)
        return count < (self.batches if full else 2)

    def _start(self, batch: list[tuple[int, Request]]) -> None:
        self._counter[0] += len(batch)
        begun = _Begun(batch, self._stages.begin([request for _, request in batch]))
        lonely = not self._begun
        self._begun.append(begun)
        self._note_at_hand()
        if lonely:  # nothing to do beside it: another thread would only take time to wake up
            _run(begun.prepared, self._stages.prepare, begun.passage)
        else:
            begun.prepared = self._preparing.submit(self._stages.prepare, begun.passage)
            begun.prepared.add_done_callback(self._wake)

    def _compute(self) -> bool:
        """Have the device compute what is prepared, in order, and a thread wait for it."""
        busy = False
        for begun in self._begun:
            if begun.error is not None or self._servable.device_lost or not begun.prepared.done():
                break
            if begun.finished is None and begun.responses is None:
                busy = True
                error = begun.prepared.exception() or self._launch(begun)
                if error is not None:
                    self._fail(begun, error)
        return busy

    def _launch(self, begun: _Begun) -> BaseException | None:
        """Have the device compute one batch; return why it does not."""
        try:
            self._stages.compute(begun.passage)
        except BaseException as error:  # noqa: BLE001 - answered as `predict` would, or raised there
            return error
        begun.finished = self._finishing.submit(self._stages.finish, begun.passage)
        begun.finished.add_done_callback(self._wake)
        return None

    def _fail(self, begun: _Begun, error: BaseException) -> None:
        """Answer a batch that raised `error`, if that can be done at once.

        Not so if it will run again, which wants the device and the handler to itself, or if the
        handler means to end the process: those who came before are answered first.
        """
        leaves = isinstance(error, SystemExit | KeyboardInterrupt)
        if leaves or self._stages.runs_again(begun.passage, error):
            begun.error = error
        else:
            begun.responses = self._stages.recover(begun.passage, error)

    def _settle(self) -> bool:
        """Answer the oldest batches, as many as are over; tell whether there was one.

        Raises:
            SystemExit, KeyboardInterrupt: the handler of the oldest one wants it.
        """
        busy = False
        while self._begun:
            responses = self._find_responses(self._begun[0])
            if responses is None:
                break
            self._reply(self._begun[0], responses)
            busy = True
            if self._servable.device_lost:
                self._give_back(self._count_launched())
        return busy

    def _find_responses(self, oldest: _Begun) -> list[Response] | None:
        """Return what the oldest batch is answered; None if that is not known yet."""
        if oldest.finished is not None and oldest.finished.done() and oldest.error is None:
            error = oldest.finished.exception()
            if error is None:
                return oldest.finished.result()
            if oldest.responses is None:
                self._fail(oldest, error)
        error = oldest.error
        if error is None:
            return oldest.responses
        if isinstance(error, SystemExit | KeyboardInterrupt):
            raise error
        if all(begun.rests for begun in self._begun):
            return self._stages.recover(oldest.passage, error)
        return None

    def _reply(self, begun: _Begun, responses: list[Response]) -> None:
        """Have the oldest batch answered.

        Its time begins when the one before was over: so all times add up to the worker's, and what
        it was prepared for beside others counts as waiting.
        """
        self._begun.popleft()
        self._stages.end(begun.passage)
        started, now = max(begun.started, self._ended), time.monotonic()
        self._ended = now
        numbers = [number for number, _ in begun.batch]
        self._replies.append(Batch(numbers, responses, started, now - started))
        self._note_at_hand()
        capped = self._servable.batch_cap != self._cap
        if capped or now - self._shipped > _SHIP_MILLISECONDS / 1000:
            self._ship()

    def _count_launched(self) -> int:
        """Return how many of the oldest batches the device was given, or are answered anyway."""
        for position, begun in enumerate(self._begun):
            if begun.finished is None and begun.responses is None:
                return position
        return len(self._begun)

    def _give_back(self, position: int) -> None:
        """Forget the batches from `position` on: another process will answer them."""
        while len(self._begun) > position:
            self._counter[0] -= len(self._begun.pop().batch)

    def _listen(self, *, wait: bool) -> None:
        """Hear what the door and our threads say; `wait` until somebody says something."""
        timeout: int | None = 0
        if wait:
            self._measured += self._servable.drain_metrics()
            news = self._measured or (self._uses_memory and self._shipped < self._ended)
            timeout = _SHIP_MILLISECONDS if news else None
        heard = {number for number, _ in self._poller.poll(timeout)}
        if self._woken.fileno() in heard:
            self._woken.recv(1 << 12)
        if self._sock.fileno() in heard:
            self._receive()
            self._fill()
        if wait and not heard:
            self._ship()

    def _note_at_hand(self) -> None:
        self._at_hand = [item for begun in self._begun for item in begun.batch]

    def _wake(self, _: object = None) -> None:
        """Wake the main thread; it may be on its way already."""
        with contextlib.suppress(BlockingIOError):
            self._waker.send(b"\0")


def _run(future: Future[None], function: Callable[[Any], None], argument: Any) -> None:  # noqa: ANN401
    """Call `function` here and now, as an executor would."""
    try:
        function(argument)
    except BaseException as error:  # noqa: BLE001 - who looks at the future raises it
        future.set_exception(error)
    else:
        future.set_result(None)
