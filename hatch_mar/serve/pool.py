"""One version of one model: its queue, its workers, and what happens between them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import BadRequestError, ModelError
from hatch_mar.serve.batching.batcher import NUMBER_MASK, Job, Seat
from hatch_mar.serve.batching.choice import make_batcher
from hatch_mar.serve.batching.sequences import SequenceHeaders
from hatch_mar.serve.brakes import Brakes
from hatch_mar.serve.channel import encode_forgotten, encode_requests, pack_request
from hatch_mar.serve.delivery import Delivery
from hatch_mar.serve.frames import ChannelError
from hatch_mar.serve.health import ModelHealth, ModelState
from hatch_mar.serve.launch import count_ranks, count_workers, make_launch, uses_gpu
from hatch_mar.serve.refusal import expire, mourn, refuse
from hatch_mar.serve.slot import Slot, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatch_mar.model.protocol import Request, Response
    from hatch_mar.serve.deployment import Deployment
    from hatch_mar.serve.devices import Device, Placement
    from hatch_mar.serve.metrics.store import Metrics, Tally
    from hatch_mar.serve.process import Exit
    from hatch_mar.serve.settings import ServiceSettings

logger = logging.getLogger("hatch_mar.serve")

STOP_SECONDS = 10.0
"""How long a worker that has nothing to do may take to leave."""
_WORKER_NUMBERS = itertools.count(9000)
"""Workers are called after TorchServe's first worker port, as its clients expect."""


class Pool:
    """The workers of one deployment, and the requests on their way to and from them."""

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
        self.uses_gpu = uses_gpu(deployment, settings, placement)
        self.capacity = config.job_queue_size or settings.job_queue_size
        self.slots: list[Slot] = []
        self.closing = False
        self._settings = settings
        self._placement = placement
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._batcher = make_batcher(config, self.capacity)
        self._brakes = Brakes()
        self._sequences = (
            SequenceHeaders.from_environ(settings.environ) if config.sequence_batching else None
        )
        self._delivery = Delivery(
            deployment.name, self._batcher, self._brakes, metrics, sequences=self._sequences
        )
        self._by_seat: dict[Seat, Slot] = {}
        self._number = 0
        self._hopeless = True
        """Nobody will ever answer: there is no worker, and none will come."""
        self._scheduled = False
        # A batch of several is worth waiting for the rest of what this turn of the loop brings.
        self._eager = config.batch_size == 1
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._scaling = asyncio.Lock()
        gpus = len(placement.choose(config.device_ids, deployment.name)) if self.uses_gpu else 0
        self.min_workers = count_workers(deployment, settings, gpus)
        self._ranks = count_ranks(deployment, gpus)
        self.max_workers = max(config.max_workers or 0, self.min_workers)

    @property
    def pending(self) -> int:
        """How many requests wait."""
        return self._batcher.pending

    async def start(self) -> None:
        """Start the workers, all at once, and return when all are ready.

        Raises:
            ModelError: one of them could not load the model. The others may still be at it.
        """
        slots = self._add_slots(self.min_workers, check_examples=True)
        await _load(slots)

    async def scale(self, minimum: int, maximum: int | None = None) -> None:
        """Run at least `minimum` workers and at most `maximum`, by default as many.

        Returns when the new ones are ready, or the old ones gone; who comes meanwhile waits.

        Raises:
            ModelError: a new one could not load the model; the new ones are gone then.
        """
        async with self._scaling:
            await self._scale(minimum, minimum if maximum is None else maximum)

    async def _scale(self, minimum: int, maximum: int) -> None:
        bounds = self.min_workers, self.max_workers
        self.min_workers, self.max_workers = minimum, maximum
        slots = [slot for slot in self.slots if slot.state not in {State.STOPPING, State.DEAD}]
        added = self._add_slots(minimum - len(slots), check_examples=False)
        gone = slots[self.max_workers :]
        for slot in gone:
            self._stop(slot, grace=self.config.response_timeout)
        try:
            await _load(added)
        except ModelError:
            self.min_workers, self.max_workers = bounds
            gone += added
            for slot in added:
                self._stop(slot, grace=0)
            raise
        finally:
            await asyncio.gather(*(slot.ended for slot in gone))
            self._remove(gone)

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
        except ChannelError as error:
            raise BadRequestError(str(error)) from error
        job = Job(packed, on_reply, self, tally, number, time.monotonic())
        job.on_piece = on_piece
        job.group = group
        batcher = self._batcher
        if self.closing or self._hopeless or not batcher.offer(job):
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
                self._loop.call_soon(self._pump)
        return job

    def cancel(self, job: Job) -> None:
        """Forget `job`; see `Service.cancel`."""
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
        troubled = [slot for slot in self.slots if slot.reason and not slot.answers]
        return ModelHealth(
            state=self._state(),
            reason="; ".join(f"worker {slot.number}: {slot.explain()}" for slot in troubled),
            workers=tuple(slot.health() for slot in self.slots),
            min_workers=self.min_workers,
            default=default,
        )

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109 - not a cancellation
        """Take nothing more, answer what was accepted for `timeout` seconds, end every worker.

        What is still unanswered then is answered with an error. What was cancelled is not waited
        for, even if a worker is at it.
        """
        self.closing = True
        self._look_idle()
        if timeout > 0 and not self._idle.is_set():
            try:
                await asyncio.wait_for(self._idle.wait(), timeout)
            except TimeoutError:
                logger.warning("%s: requests were still unanswered when we stopped", self)
        self._delivery.desert(self._batcher.withdraw())
        for slot in self.slots:
            # What it holds now nobody waits for, or not any more.
            busy = slot.seat is not None and bool(slot.seat.held)
            slot.stop(0 if busy else min(timeout, STOP_SECONDS))
        await asyncio.gather(*(slot.ended for slot in self.slots))
        self._remove(list(self.slots))
        if self._timer is not None:
            self._timer.cancel()

    def __str__(self) -> str:
        """Name the model and the version."""
        return f"{self.deployment.name} {self.deployment.version}"

    def on_ready(self, slot: Slot) -> Seat:
        """Seat a worker that has just loaded the model, and give it what waits."""
        seat = self._batcher.join(time.monotonic())
        self._by_seat[seat] = slot
        name = f"W-{slot.number}-{self.deployment.name}_{self.deployment.version}"
        self._metrics.set_load_time(name, slot.load_seconds)
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
            self._delivery.take_replies(seat, payload, replies)
        finally:
            # The worker first: it computes while we write to the clients.
            if self._batcher.waiting:
                self._pump()
            for job, response in replies:
                self._delivery.answer(job, response)
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
            self._metrics.record(sample)

    def on_lost(self, seat: Seat, started: int, end: Exit) -> None:
        """Answer what the dead worker had begun; the rest of what it held waits again."""
        del self._by_seat[seat]
        self._brakes.forget(seat)
        for job in self._batcher.leave(seat, started):
            self._delivery.answer(job, mourn(end))
        self._schedule()
        self._look_idle()

    def on_dead(self, slot: Slot) -> None:
        """Give back its device; when it was the last worker, nobody need wait any more."""
        if slot.device is not None:
            self._placement.release(slot.device, self.config.system_max_gpu_memory)
        self._hopeless = all(one.state is State.DEAD for one in self.slots)
        if self._hopeless:
            self._delivery.desert(self._batcher.withdraw())
            self._look_idle()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Send what may be sent: one write per worker."""
        self._scheduled = False
        for seat, jobs in self._batcher.assign(time.monotonic()):
            slot = self._by_seat[seat]
            for data in encode_requests([job.packed for job in jobs]):
                slot.send(data)
        self._arm()

    def _look_idle(self) -> None:
        if self.closing and not self._batcher.awaited:
            self._idle.set()

    def _predict_wait(self) -> float:
        """Say how many seconds what waits will take, as far as is known."""
        times = [seat.item_time for seat in self._batcher.seats if seat.item_time]
        return self.pending * sum(times) / len(times) ** 2 if times else 1

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
        for job in [*self._batcher.expired(now), *self._batcher.overdue(now)]:
            self._delivery.answer(job, expire(self.config.client_timeout_in_mills))
        self._delivery.desert(self._batcher.lapsed(now))
        for seat in self._batcher.stuck(now):
            limit = self.config.response_timeout
            self._by_seat[seat].kill(f"no answer within responseTimeout={limit} seconds")
            seat.since = now
        self._pump()
        self._look_idle()

    def _add_slots(self, count: int, *, check_examples: bool) -> list[Slot]:
        if count <= 0:
            return []
        placed: list[Device | None] = [None] * count
        memory = self.config.system_max_gpu_memory
        if self.uses_gpu:
            ids = self.config.device_ids
            name = self.deployment.name
            stride = self._ranks or 1
            placed = [
                *self._placement.place(name, count, device_ids=ids, memory=memory, stride=stride)
            ]
        slots = [
            self._make_slot(device, check_examples=check_examples and not position)
            for position, device in enumerate(placed)
        ]
        self.slots += slots
        self._hopeless = False
        for slot in slots:
            slot.start()
        return slots

    def _make_slot(self, device: Device | None, *, check_examples: bool) -> Slot:
        launch = make_launch(
            self.deployment,
            self._settings,
            device,
            self._placement,
            model=str(self),
            ranks=self._ranks,
            check_examples=check_examples,
        )
        return Slot(next(_WORKER_NUMBERS), launch, self, device=device)

    def _stop(self, slot: Slot, *, grace: float) -> None:
        if slot.seat is not None:
            self._batcher.retire(slot.seat)
        slot.stop(grace)

    def _remove(self, slots: list[Slot]) -> None:
        self.slots = [slot for slot in self.slots if slot not in slots]

    def _state(self) -> ModelState:
        states = {slot.state for slot in self.slots}
        if self.closing:
            return "stopping"
        if State.READY in states:
            return "ready"
        if not self.slots:
            return "scaled-to-zero" if self.min_workers == 0 else "loading"
        if states == {State.DEAD}:
            return "failed"
        return "restarting" if any(slot.deaths for slot in self.slots) else "loading"


async def _load(slots: list[Slot]) -> None:
    """Wait until every slot has loaded its model, or one has failed."""
    await asyncio.gather(*(slot.loaded for slot in slots))
