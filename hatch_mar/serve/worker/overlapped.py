"""The worker's loop for `asyncCommunication`: batches overlap, on one asyncio loop.

`handle` is a coroutine function. It is called for every batch as soon as that arrives, on the loop
on which `initialize` ran if that is one too, and answers in whatever order it likes.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from hatch_mar.model.protocol import Response
from hatch_mar.serve.channel import Batch
from hatch_mar.serve.worker.loop import ABANDONED, DeviceLostError, Loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.protocol import Request


class OverlappedLoop(Loop):
    """Has every batch answered by a task of its own."""

    _tasks: dict[asyncio.Task[None], list[int]]
    _failure: BaseException | None

    def run(self) -> None:
        """Answer until the door says STOP; see `Loop.run`."""
        from hatch_mar.model.entrypoint import handler_loop  # noqa: PLC0415 - it imports models

        self._tasks = {}
        self._failure = None
        handler_loop().run(self._run())
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        loop.add_reader(self._sock, woken.set)
        try:
            while self._failure is None and not (self._stopping and not self._tasks):
                await woken.wait()
                woken.clear()
                if self._servable.device_lost:
                    self._failure = DeviceLostError()
                    break  # what comes now another worker can answer
                self._receive_all()
                while self._held:
                    batch = self._take()
                    task = loop.create_task(self._answer_beside(batch))
                    self._tasks[task] = [number for number, _ in batch]
                    task.add_done_callback(self._end)
                    task.add_done_callback(lambda _: woken.set())
        except BaseException as error:  # noqa: BLE001 - raised again outside of the handler's loop
            self._failure = error
        finally:
            loop.remove_reader(self._sock)
            for task in self._tasks:
                task.cancel()

    def _receive_all(self) -> None:
        """Take what is there; who is woken by a task finds nothing."""
        if self._poller.poll(0):
            self._receive()
            self._fill()

    async def _answer_beside(self, batch: list[tuple[int, Request]]) -> None:
        self._counter[0] += len(batch)
        self._at_hand = [*self._at_hand, *batch]
        started = time.monotonic()
        try:
            responses = await self._servable.predict_overlapped([request for _, request in batch])
        except asyncio.CancelledError:
            responses = [Response(ABANDONED, b"") for _ in batch]
        finally:
            self._at_hand = [one for one in self._at_hand if one not in batch]
        numbers = [number for number, _ in batch]
        self._replies.append(Batch(numbers, responses, started, time.monotonic() - started))
        self._flush()
        self._ship()
        if self._servable.device_lost:
            raise DeviceLostError

    def _end(self, task: asyncio.Task[None]) -> None:
        """Hear that a batch is answered, or forgotten, or that the handler wants to exit."""
        del self._tasks[task]
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()

    def _forget(self, numbers: Sequence[int]) -> None:
        """Cancel a batch for which nobody waits any more."""
        super()._forget(numbers)
        gone = set(numbers)
        for task, held in self._tasks.items():
            if gone.issuperset(held):
                task.cancel()
