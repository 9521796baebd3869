"""The workers of one version of one model: how many there are, where, who comes and who goes."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from hatch_mar.errors import ModelError
from hatch_mar.serve.launch import count_ranks, count_workers, make_launch, uses_gpu
from hatch_mar.serve.slot import Crew, Slot, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hatch_mar.serve.batching.jobs import Seat
    from hatch_mar.serve.deployment import Deployment
    from hatch_mar.serve.devices import Device, Placement
    from hatch_mar.serve.health import ModelState
    from hatch_mar.serve.settings import ServiceSettings

STOP_SECONDS = 10.0
"""How long a worker that has nothing to do may take to leave."""
_NUMBERS = itertools.count(9000)
"""Workers are called after TorchServe's first worker port, as its clients expect."""


class Workforce:
    """The slots of one deployment. What their workers say goes straight to `crew`."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        settings: ServiceSettings,
        placement: Placement,
        crew: Crew,
        retire: Callable[[Seat], None],
    ) -> None:
        """Start nothing yet. `retire` hears of a seat that is to be given nothing more.

        Raises:
            ModelError: the operator asked for GPUs, and there are none.
        """
        config = deployment.config
        self.slots: list[Slot] = []
        self.hopeless = True
        """Nobody will ever answer: there is no worker, and none will come."""
        self.uses_gpu = uses_gpu(deployment, settings, placement)
        self._deployment = deployment
        self._settings = settings
        self._placement = placement
        self._crew = crew
        self._retire = retire
        self._scaling = asyncio.Lock()
        gpus = len(placement.choose(config.device_ids, deployment.name)) if self.uses_gpu else 0
        self.min_workers = count_workers(deployment, settings, gpus)
        self._ranks = count_ranks(deployment, gpus)
        self.max_workers = max(config.max_workers or 0, self.min_workers)

    @property
    def staying(self) -> list[Slot]:
        """The slots that have a worker, or will have one, and were not told to stop."""
        return [slot for slot in self.slots if slot.state not in {State.STOPPING, State.DEAD}]

    async def start(self) -> None:
        """Start the workers, all at once, and return when all are ready.

        Raises:
            ModelError: one of them could not load the model. The others may still be at it.
        """
        await _load(self._add(self.min_workers, check_examples=True))

    async def scale(self, minimum: int, maximum: int) -> None:
        """Run at least `minimum` workers and at most `maximum`.

        Returns when the new ones are ready, or the old ones gone; who comes meanwhile waits.

        Raises:
            ModelError: a new one could not load the model; the new ones are gone then.
        """
        async with self._scaling:
            await self._scale(minimum, maximum)

    def bury(self, slot: Slot) -> None:
        """Give back the device of a slot that will have no worker any more."""
        if slot.device is not None:
            memory = self._deployment.config.system_max_gpu_memory
            self._placement.release(slot.device, memory)
        self.hopeless = all(one.state is State.DEAD for one in self.slots)

    async def close(self, *, grace: float) -> None:
        """End every worker: one that is busy at once, the others within `grace` seconds."""
        slots = list(self.slots)
        for slot in slots:
            # What it holds now nobody waits for, or not any more.
            busy = slot.seat is not None and bool(slot.seat.held)
            slot.stop(0 if busy else min(grace, STOP_SECONDS))
        await self._part_with(slots)

    def state(self) -> ModelState:
        """Say how the workers are, taken together."""
        states = {slot.state for slot in self.slots}
        if State.READY in states:
            return "ready"
        if not self.slots:
            return "scaled-to-zero" if self.min_workers == 0 else "loading"
        if states == {State.DEAD}:
            return "failed"
        return "restarting" if any(slot.deaths for slot in self.slots) else "loading"

    def complain(self) -> str:
        """Say what is wrong with those that do not answer; nothing if all is well."""
        troubled = [slot for slot in self.slots if slot.reason and not slot.answers]
        return "; ".join(f"worker {slot.number}: {slot.explain()}" for slot in troubled)

    async def _scale(self, minimum: int, maximum: int) -> None:
        bounds = self.min_workers, self.max_workers
        self.min_workers, self.max_workers = minimum, maximum
        slots = self.staying
        added = self._add(minimum - len(slots), check_examples=False)
        gone = slots[maximum:]
        self._dismiss(gone)
        try:
            await _load(added)
        except ModelError:
            self.min_workers, self.max_workers = bounds
            gone += added
            for slot in added:
                self._stop(slot, grace=0)
            raise
        finally:
            await self._part_with(gone)

    def _add(self, count: int, *, check_examples: bool) -> list[Slot]:
        if count <= 0:
            return []
        slots = [
            self._make_slot(device, check_examples=check_examples and not position)
            for position, device in enumerate(self._place(count))
        ]
        self.slots += slots
        self.hopeless = False
        for slot in slots:
            slot.start()
        return slots

    def _place(self, count: int) -> Iterable[Device | None]:
        """Reserve a device for each of `count` workers; None for one that runs on CPU.

        Raises:
            ModelError: they do not fit.
        """
        if not self.uses_gpu:
            return [None] * count
        config = self._deployment.config
        return self._placement.place(
            self._deployment.name,
            count,
            device_ids=config.device_ids,
            memory=config.system_max_gpu_memory,
            stride=self._ranks or 1,
        )

    def _make_slot(self, device: Device | None, *, check_examples: bool) -> Slot:
        deployment = self._deployment
        launch = make_launch(
            deployment,
            self._settings,
            device,
            self._placement,
            model=f"{deployment.name} {deployment.version}",
            ranks=self._ranks,
            check_examples=check_examples,
        )
        return Slot(next(_NUMBERS), launch, self._crew, device=device)

    def _dismiss(self, slots: list[Slot]) -> None:
        """Let workers answer what they hold, and leave."""
        for slot in slots:
            self._stop(slot, grace=self._deployment.config.response_timeout)

    def _stop(self, slot: Slot, *, grace: float) -> None:
        if slot.seat is not None:
            self._retire(slot.seat)
        slot.stop(grace)

    async def _part_with(self, slots: list[Slot]) -> None:
        """Forget slots, which were told to stop, when they have."""
        await asyncio.gather(*(slot.ended for slot in slots))
        self.slots = [slot for slot in self.slots if slot not in slots]


async def _load(slots: list[Slot]) -> None:
    """Wait until every slot has loaded its model, or one has failed."""
    await asyncio.gather(*(slot.loaded for slot in slots))
