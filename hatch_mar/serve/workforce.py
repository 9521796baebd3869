"""The workers of one version of one model: how many there are, where, who comes and who goes."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

from hatch_mar.errors import ModelError
from hatch_mar.serve.devices.advice import advise
from hatch_mar.serve.launch import count_ranks, count_workers, make_launch, uses_gpu
from hatch_mar.serve.slot import Crew, Slot, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hatch_mar.serve.batching.jobs import Seat
    from hatch_mar.serve.deployment import Deployment
    from hatch_mar.serve.devices.discovery import Device
    from hatch_mar.serve.devices.placement import Group, Placement
    from hatch_mar.serve.health import ModelState
    from hatch_mar.serve.launch import Launch
    from hatch_mar.serve.settings import ServiceSettings

logger = logging.getLogger("hatch_mar.serve")

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
        self.out_of_memory = 0
        """How often the memory of a worker's device did not suffice."""
        self._advised = False
        self._limit = config.system_max_gpu_memory
        self._deployment = deployment
        self._name = f"{deployment.name} {deployment.version}"
        self._settings = settings
        self._placement = placement
        self._crew = crew
        self._retire = retire
        self._scaling = asyncio.Lock()
        self._hired: set[Slot] = set()
        """Those who came one by one and load the model still."""
        gpus = len(self._choose()) if self.uses_gpu else 0
        self.min_workers = count_workers(deployment, settings, gpus)
        self._ranks = count_ranks(deployment, gpus)
        self.max_workers = max(config.max_workers or 0, self.min_workers)

    @property
    def staying(self) -> list[Slot]:
        """The slots that have a worker, or will have one, and were not told to stop."""
        return [slot for slot in self.slots if slot.state not in {State.STOPPING, State.DEAD}]

    @property
    def serving(self) -> list[Slot]:
        """The slots whose worker answers."""
        return [slot for slot in self.slots if slot.answers]

    @property
    def scaling(self) -> bool:
        """Whether somebody else is at changing the number of workers."""
        return self._scaling.locked()

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

    def hire(self) -> Slot:
        """Start one worker more, and do not wait for it.

        It is forgotten if it cannot load the model: ask `loaded` why.

        Raises:
            ModelError: no device has room for it.
        """
        (slot,) = self._add(1, check_examples=False)
        self._hired.add(slot)
        slot.loaded.add_done_callback(lambda loaded: self._on_hired(slot, loaded))
        return slot

    def dismiss(self, slot: Slot) -> None:
        """Let a worker answer what it holds, and leave; do not wait for that."""
        slot.ended.add_done_callback(lambda _: self._forget([slot]))
        self._dismiss([slot])

    def next_device(self) -> Device | None:
        """Return where one worker more would run, or begins to; None for the CPU."""
        devices = self._choose() if self.uses_gpu else []
        return devices[self._find_emptiest()] if devices else None

    def bury(self, slot: Slot) -> None:
        """Give back the devices of a slot that will have no worker any more."""
        self._placement.release(slot.devices, self._limit)
        self.hopeless = all(one.state is State.DEAD for one in self.slots)

    def house(self, slot: Slot) -> None:
        """Give a slot another device if its own is lost.

        Raises:
            ModelError: there is none, or none with room.
        """
        lost = [str(device) for device in slot.devices if device.uuid in self._placement.lost]
        if not lost:
            return
        (group,) = self._place(1)
        self._placement.release(slot.devices, self._limit)
        slot.move(group, self._make_launch(group, check_examples=not slot.loaded.done()))
        there = ", ".join(map(str, group))
        logger.warning("%s: worker %d moves to %s", self._name, slot.number, there)

    def on_ready(self, slot: Slot) -> None:
        """Hear that the worker of `slot` has loaded the model: nothing is wrong with its device."""
        self._placement.acquit(slot.devices)

    def evict(self, device: Device, reason: str) -> None:
        """End the workers on a device that is lost; they are replaced elsewhere.

        A process may not end while the driver waits for the device: it is given nothing more.
        """
        for slot in self.staying:
            if device in slot.devices:
                if slot.seat is not None:
                    self._retire(slot.seat)
                slot.kill(f"{device} is lost: {reason}")

    def on_device_fault(self, slot: Slot, fault: str, *, loading: bool) -> None:
        """Hear that the worker of `slot` ended because its CUDA context or device failed."""
        if loading and fault == "device":
            self._placement.strike(slot.devices, slot.reason)
        self._placement.on_doubt()

    def on_report(self, slot: Slot, ran_out: int) -> None:
        """Hear how a worker gets along with its device."""
        self.out_of_memory += ran_out
        self._advise(slot)

    async def close(self, *, grace: float) -> None:
        """End every worker: one that is busy at once, the others within `grace` seconds."""
        slots = list(self.slots)
        for slot in slots:
            self._advise(slot)
            # What it holds now nobody waits for, or not any more.
            busy = slot.seat is not None and bool(slot.seat.held)
            slot.stop(0 if busy else min(grace, STOP_SECONDS))
        await self._part_with(slots)

    def state(self) -> ModelState:
        """Say how the workers are, taken together."""
        states = {slot.state for slot in self.slots}
        if State.READY in states:
            return "ready"
        if self.min_workers == 0 and not any(slot.deaths for slot in self.slots):
            return "scaled-to-zero"
        if not self.slots:
            return "loading"
        if states == {State.DEAD}:
            return "failed"
        return "restarting" if any(slot.deaths for slot in self.slots) else "loading"

    def complain(self) -> str:
        """Say what is wrong with those that do not answer; nothing if all is well."""
        troubled = [slot for slot in self.slots if slot.reason and not slot.answers]
        return "; ".join(f"worker {slot.number}: {slot.explain()}" for slot in troubled)

    async def _scale(self, minimum: int, maximum: int) -> None:
        slots = self.staying
        # Whoever cannot be placed is refused before anything has changed.
        added = self._add(minimum - len(slots), check_examples=False)
        bounds = self.min_workers, self.max_workers
        self.min_workers, self.max_workers = minimum, maximum
        coming = [slot for slot in slots[:minimum] if slot in self._hired]
        gone = slots[maximum:]
        self._dismiss(gone)
        try:
            await _load(added + coming)
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
            self._make_slot(group, check_examples=check_examples and not position)
            for position, group in enumerate(self._place(count))
        ]
        self.slots += slots
        self.hopeless = False
        for slot in slots:
            slot.start()
        return slots

    def _place(self, count: int) -> Iterable[Group]:
        """Reserve devices for each of `count` workers; none for one that runs on CPU.

        Who joins others begins where there are the fewest of them.

        Raises:
            ModelError: they do not fit.
        """
        if not self.uses_gpu:
            return [()] * count
        config = self._deployment.config
        # A model that spreads itself is given all that there are.
        width = self._ranks or (len(self._placement.devices) if config.parallel_type else 1)
        return self._placement.place(
            self._deployment.name,
            count,
            device_ids=config.device_ids,
            memory=self._limit,
            width=width,
            start=self._find_emptiest() if self.staying else None,
        )

    def _find_emptiest(self) -> int:
        """Return the position of the device that has the fewest of our workers."""
        there = [device for slot in self.staying for device in slot.devices]
        devices = self._choose()
        return min(range(len(devices)), key=lambda index: there.count(devices[index]), default=0)

    def _choose(self) -> list[Device]:
        return self._placement.choose(self._deployment.config.device_ids, self._deployment.name)

    def _make_slot(self, group: Group, *, check_examples: bool) -> Slot:
        launch = self._make_launch(group, check_examples=check_examples)
        return Slot(next(_NUMBERS), launch, self._crew, devices=group)

    def _make_launch(self, group: Group, *, check_examples: bool) -> Launch:
        return make_launch(
            self._deployment,
            self._settings,
            group,
            self._placement,
            model=self._name,
            ranks=self._ranks,
            check_examples=check_examples,
        )

    def _advise(self, slot: Slot) -> None:
        """Say, once, if the model needs quite another amount of memory than it was promised."""
        if self._advised or slot.report is None:
            return
        answered = 0 if slot.seat is None else slot.seat.answered
        advice = advise(self._limit, slot.report.memory, answered=answered)
        if advice:
            self._advised = True
            logger.warning("%s: worker %d: %s", self._name, slot.number, advice)

    def _dismiss(self, slots: list[Slot]) -> None:
        """Let workers answer what they hold, and leave."""
        for slot in slots:
            self._stop(slot, grace=self._deployment.config.response_timeout)

    def _stop(self, slot: Slot, *, grace: float) -> None:
        self._advise(slot)
        if slot.seat is not None:
            self._retire(slot.seat)
        slot.stop(grace)

    async def _part_with(self, slots: list[Slot]) -> None:
        """Forget slots, which were told to stop, when they have."""
        await _await_all(slot.ended for slot in slots)
        self._forget(slots)

    def _forget(self, slots: list[Slot]) -> None:
        self.slots = [slot for slot in self.slots if slot not in slots]

    def _on_hired(self, slot: Slot, loaded: asyncio.Future[None]) -> None:
        self._hired.discard(slot)
        if loaded.exception() is not None:
            self._forget([slot])


async def _load(slots: list[Slot]) -> None:
    """Wait until every slot has loaded its model, or one has failed."""
    await _await_all(slot.loaded for slot in slots)


async def _await_all(futures: Iterable[asyncio.Future[None]]) -> None:
    """Wait for all; who gives up waiting must not cancel what others wait for, too."""
    await asyncio.gather(*map(asyncio.shield, futures))
