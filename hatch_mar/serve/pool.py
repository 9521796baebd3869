"""One version of one model: its queue, and what goes between it and the workers."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import BadRequestError
from hatch_mar.model.protocol import HALVED
from hatch_mar.serve.batching.choice import make_batcher
from hatch_mar.serve.batching.explanation import count_all, explain
from hatch_mar.serve.batching.forecast import Forecast
from hatch_mar.serve.batching.jobs import NUMBER_MASK, Job, Seat
from hatch_mar.serve.batching.record import BatchRecord
from hatch_mar.serve.batching.sequences import SequenceHeaders
from hatch_mar.serve.brakes import Brakes
from hatch_mar.serve.channel import encode_forgotten, encode_requests
from hatch_mar.serve.delivery import Delivery
from hatch_mar.serve.frames import ChannelError
from hatch_mar.serve.headers import HeaderBlock
from hatch_mar.serve.health import ModelHealth
from hatch_mar.serve.packing import pack_request
from hatch_mar.serve.refusal import expire, miss, mourn, refuse
from hatch_mar.serve.scaling.autoscaler import Autoscaler
from hatch_mar.serve.tuning import find_cost
from hatch_mar.serve.workforce import Workforce

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hatch_mar.model.protocol import Request, Response
    from hatch_mar.serve.deployment import Deployment
    from hatch_mar.serve.devices.placement import Placement
    from hatch_mar.serve.metrics.store import Metrics, Tally
    from hatch_mar.serve.process import Exit
    from hatch_mar.serve.settings import ServiceSettings
    from hatch_mar.serve.shared import SharedMemory
    from hatch_mar.serve.slot import Slot

logger = logging.getLogger("hatch_mar.serve")

_ENOUGH = 8
"""After so many requests of one turn of the loop a worker is told, so that it can work while the
door still reads. Where they are to be batches they wait for the end of the turn."""
_MOST_DEATHS = 3
"""So many workers may die over a request that they had not begun, until it is answered for them."""


class Pool:
    """The requests of one deployment, on their way to its workers and back."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        settings: ServiceSettings,
        placement: Placement,
        metrics: Metrics,
    ) -> None:
        """Start nothing yet.

        Raises:
            ModelError: the operator asked for GPUs, and there are none.
        """
        config = deployment.config
        self.deployment = deployment
        self.config = config
        self.capacity = config.job_queue_size or settings.job_queue_size
        self.closing = False
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self.record = BatchRecord()
        self.forecast = Forecast(self.record, find_cost(deployment, settings, placement))
        self._batcher = make_batcher(config, self.capacity, self.forecast)
        self._brakes = Brakes()
        self._sequences = (
            SequenceHeaders.from_environ(settings.environ) if config.sequence_batching else None
        )
        self._delivery = Delivery(
            deployment.name,
            self._batcher,
            self._brakes,
            metrics,
            self.record,
            sequences=self._sequences,
        )
        self._by_seat: dict[Seat, Slot] = {}
        self._number = 0
        self._suspected: tuple[Job | None, int] = None, 0
        """What the last worker that had begun nothing was about to begin, and how many were."""
        self._scheduled = False
        self._fresh = 0
        """Requests of this turn of the loop that no worker was told of."""
        # A batch of several is worth waiting for the rest of what this turn of the loop brings.
        self._eager = config.batch_size == 1
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self.workforce = Workforce(
            deployment,
            settings=settings,
            placement=placement,
            crew=self,
            retire=self._batcher.retire,
        )
        self.autoscaler = Autoscaler(
            str(self),
            config,
            workforce=self.workforce,
            batcher=self._batcher,
            count=lambda: self._number,
        )

    @property
    def pending(self) -> int:
        """How many requests wait."""
        return self._batcher.pending

    async def start(self) -> None:
        """Start the workers; see `Workforce.start`. From then on they follow the load."""
        await self.workforce.start()
        self.autoscaler.follow()

    async def scale(self, minimum: int, maximum: int) -> None:
        """Change the bounds of the number of workers; see `Workforce.scale`."""
        try:
            await self.workforce.scale(minimum, maximum)
        finally:
            self.autoscaler.follow()

    def submit(
        self,
        request: Request,
        tally: Tally,
        on_reply: Callable[[Response], None],
        on_piece: Callable[[Response], None] | None = None,
    ) -> Job:
        """Accept `request`; see `Service.submit`."""
        tally.requests += 1
        self._number = number = self._number + 1
        group = "" if self._sequences is None else self._sequences.join(request)
        try:
            packed = pack_request(number & NUMBER_MASK, request)
            patience = HeaderBlock.of(request.headers).patience
        except (ChannelError, ValueError) as error:
            raise BadRequestError(str(error)) from error
        job = Job(packed, on_reply, self, tally, number, time.monotonic())
        if patience != math.inf:
            job.deadline = job.arrived + patience
        job.on_piece = on_piece
        job.group = group
        batcher = self._batcher
        lost = self.closing or (self.workforce.hopeless and not self.autoscaler.rouse())
        if lost or not batcher.offer(job):
            self.autoscaler.refused += 1
            raise refuse(
                self.deployment.name,
                tally.version,
                wait=self._predict_wait(),
                describe=request.describe,
            )
        if not self._scheduled:
            if self._eager and batcher.is_free():
                self._pump()
            else:
                self._scheduled = True
                self._fresh = 0
                self._loop.call_soon(self._pump)
        elif self._eager:
            self._fresh += 1
            if self._fresh >= _ENOUGH:
                self._fresh = 0
                self._send()
        return job

    def cancel(self, job: Job) -> None:
        """Forget `job`; see `Service.cancel`."""
        self.record.gone += not job.done
        self._batcher.cancel(job)
        self._brakes.release(job)
        if not self._batcher.ordered:
            # Such a worker can stop what it is at; one that answers in batches cannot.
            seat = self._batcher.seat_of(job)
            if seat is not None:
                self._by_seat[seat].send(encode_forgotten([job.number & NUMBER_MASK]))
        self._look_idle()

    def hold(self, job: Job) -> None:
        """Keep the worker of `job` waiting; see `Service.hold`."""
        seat = self._batcher.seat_of(job)
        if seat is not None and not job.done:
            self._brakes.hold(job, seat, self._by_seat[seat])

    def release(self, job: Job) -> None:
        """Let the worker of `job` go on; see `Service.release`."""
        self._brakes.release(job)
        self._arm()

    def health(self, *, default: bool = False) -> ModelHealth:
        """Say whether requests are answered, and if not, why."""
        workforce = self.workforce
        return ModelHealth(
            state="stopping" if self.closing else workforce.state(),
            reason=workforce.complain(),
            workers=tuple(slot.health() for slot in workforce.slots),
            min_workers=workforce.min_workers,
            default=default,
        )

    def explain_batching(self) -> dict[str, Any]:
        """Say what batches were seen, what follows from them, and why they are as they are."""
        return explain(self._batcher, self.record, self.forecast, time.monotonic())

    def count_batches(self) -> Mapping[str, int]:
        """Return what was counted of batches and refusals since the start."""
        return count_all(self._batcher, self.record)

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109 - not a cancellation
        """Take nothing more, answer what was accepted for `timeout` seconds, end every worker.

        What is still unanswered then is answered with an error. What was cancelled is not waited
        for, even if a worker is at it.
        """
        self.closing = True
        self.autoscaler.stop()
        self._look_idle()
        if timeout > 0 and not self._idle.is_set():
            try:
                await asyncio.wait_for(self._idle.wait(), timeout)
            except TimeoutError:
                logger.warning("%s: requests were still unanswered when we stopped", self)
        self._delivery.desert(self._batcher.withdraw())
        await self.workforce.close(grace=timeout)
        if self._timer is not None:
            self._timer.cancel()

    def __str__(self) -> str:
        """Name the model and the version."""
        return f"{self.deployment.name} {self.deployment.version}"

    def on_start(self, slot: Slot) -> None:
        """See to it that the slot has a device; see `Workforce.house`."""
        self.workforce.house(slot)

    def on_report(self, slot: Slot, ran_out: int) -> None:
        """Hear how a worker gets along with its device."""
        self.workforce.on_report(slot, ran_out)

    def on_device_fault(self, slot: Slot, fault: str, *, loading: bool) -> None:
        """Hear that the device of a worker failed."""
        self.workforce.on_device_fault(slot, fault, loading=loading)

    def on_ready(self, slot: Slot) -> Seat:
        """Seat a worker that has just loaded the model, and give it what waits."""
        seat = self._batcher.join(time.monotonic(), batches=slot.batches)
        self._by_seat[seat] = slot
        self.workforce.on_ready(slot)
        self._metrics.set_load_time(self._label(slot), slot.load_seconds)
        self._schedule()
        return seat

    def on_replies(self, seat: Seat, payload: memoryview) -> None:
        """Hand the replies of a worker to those who wait for them.

        Raises:
            ChannelError: they are not the replies that are due.
        """
        replies: list[tuple[Job, Response]] = []
        seat.since = time.monotonic()
        try:
            self._delivery.take_replies(seat, payload, replies, self._by_seat[seat].take_shared)
        finally:
            # The worker first: it computes while we write to the clients.
            if self._batcher.waiting:
                self._pump()
            self._delivery.answer_all(replies)
            self._look_idle()

    def on_pieces(self, seat: Seat, payload: memoryview) -> None:
        """Hand intermediate answers to those who wait for them.

        Raises:
            ChannelError: the worker does not hold their requests.
        """
        seat.since = time.monotonic()
        self._delivery.take_pieces(seat, payload)

    def on_samples(self, samples: list[dict[str, Any]]) -> None:
        """Publish what a handler measured."""
        for sample in samples:
            if sample["name"] == HALVED:
                self.record.halved += 1
            else:
                self._metrics.record(sample)

    def on_lost(self, seat: Seat, started: int, end: Exit) -> None:
        """Answer what the dead worker had begun; the rest of what it held waits again."""
        del self._by_seat[seat]
        self._brakes.forget(seat)
        held = list(seat.held)
        begun = self._batcher.leave(seat, started)
        for job in begun:
            self._delivery.answer(job, mourn(end))
        if held and not begun:
            self._suspect(held[0], end)
        self._schedule()
        self._look_idle()

    def _suspect(self, job: Job, end: Exit) -> None:
        """Answer the request at which workers die before they have begun anything, in the end."""
        deaths = 1 + (self._suspected[1] if self._suspected[0] is job else 0)
        self._suspected = job, deaths
        if deaths >= _MOST_DEATHS and not job.done:
            self._delivery.answer(job, mourn(end))
            self._batcher.cancel(job)

    def on_dead(self, slot: Slot) -> None:
        """Have its device given back; when it was the last worker, nobody need wait any more."""
        self.workforce.bury(slot)
        self._metrics.forget_load_time(self._label(slot))
        waits = self._batcher.pending and slot.asked_to_leave
        if self.workforce.hopeless and not (waits and self.autoscaler.rouse()):
            self._delivery.desert(self._batcher.withdraw())
            self._look_idle()

    def _label(self, slot: Slot) -> str:
        """Return the name that a worker has in the metrics."""
        return f"W-{slot.number}-{self.deployment.name}_{self.deployment.version}"

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        self._send()

    def _send(self) -> None:
        """Send what may be sent: one write per worker."""
        now = time.monotonic()
        if now >= self._batcher.next_deadline:
            self._drop_late(now)
        for seat, jobs in self._batcher.assign(now):
            slot = self._by_seat[seat]
            memories: list[SharedMemory] = []
            for data in encode_requests([job.packed for job in jobs], memories):
                slot.send(data, tuple(memories))
                memories.clear()
        self._arm()

    def _drop_late(self, now: float) -> None:
        """Tell those whose deadline is over; what waited for them is not run."""
        for job in self._batcher.late(now):
            self.record.late += 1
            self.record.compare(job, now)
            self._delivery.answer(job, miss())

    def _look_idle(self) -> None:
        if self.closing and not self._batcher.awaited:
            self._idle.set()

    def _predict_wait(self) -> float:
        """Say how many seconds what waits will take, as far as is known."""
        wait = self._batcher.predict_wait(time.monotonic())
        times = [seat.item_time for seat in self._batcher.seats if seat.item_time]
        if wait or not times:
            return wait
        return self.pending * sum(times) / len(times) ** 2

    def _arm(self) -> None:
        """Have `_on_time` called when time alone will change something, or somewhat earlier."""
        wake = self._batcher.wake_at()
        timer = self._timer
        if wake == math.inf or (timer is not None and timer.when() <= wake):
            return
        if timer is not None:
            timer.cancel()
        # Both are the monotonic clock; uvloop's own may be a millisecond behind.
        delay = max(0.0, wake - time.monotonic())
        self._timer = self._loop.call_later(delay, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        now = time.monotonic()
        self._drop_late(now)
        for job in [*self._batcher.expired(now), *self._batcher.overdue(now)]:
            self.record.expired += not job.done
            self._delivery.answer(job, expire(self.config.client_timeout_in_mills))
        self._delivery.desert(self._batcher.lapsed(now))
        for seat in self._batcher.stuck(now):
            limit = self.config.response_timeout
            self._by_seat[seat].kill(f"no answer within responseTimeout={limit} seconds")
            seat.since = now
        self._pump()
        self._look_idle()
