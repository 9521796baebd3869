"""Which worker gets which GPU.

Workers are dealt out in turn, as in TorchServe. Where the author said how much memory one takes
(`system.maxGPUMemory`), a GPU without room for it loses its turn to the one with most room. Room is
what nobody was promised, and no more than what NVML says is free: others may use the GPU, too. How
much a worker takes that was promised nothing is not guessed at.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from hatch_mar.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hatch_mar.serve.devices.discovery import Device

logger = logging.getLogger("hatch_mar.serve")

STRIKES = 3
"""A GPU on which so many workers in a row could not begin is taken for lost."""

Group: TypeAlias = "tuple[Device, ...]"
"""The GPUs of one worker: one, or, of a model in several processes, one for each of them."""


@dataclass(slots=True)
class _Count:
    """What is known of one GPU."""

    workers: int = 0
    """Workers of ours."""
    promised: int = 0
    """MB that they may take."""
    others: float = 0
    """MB that others took, as far as we could tell our workers' from theirs."""
    strikes: int = 0
    """Workers in a row that its failure kept from beginning."""


class Placement:
    """Which worker runs where. Round robin over the GPUs, across all models of a runner."""

    def __init__(
        self,
        devices: Iterable[Device],
        *,
        free: Callable[[Device], float | None] = lambda _: None,
    ) -> None:
        """Place workers on `devices`; `free` says how many MB are free now, if that is known."""
        self.devices = list(devices)
        """All of them, those that are lost, too."""
        self.lost: dict[str, str] = {}
        """Why a device is used no more, by its UUID."""
        self.on_lost: Callable[[Device], object] = lambda _: None
        """Called with a device that is used no more, after it was put on record."""
        self.on_doubt: Callable[[], object] = lambda: None
        """Called when it is worth asking NVML how the devices are."""
        self._free = free
        self._next = 0
        self._counts = {device.uuid: _Count() for device in self.devices}

    @property
    def living(self) -> list[Device]:
        """The devices that are not lost."""
        return [device for device in self.devices if device.uuid not in self.lost]

    def choose(self, device_ids: Sequence[int] | None, model: str) -> list[Device]:
        """Return the devices a model may use: those of its `deviceIds`, or all, except the lost.

        As in TorchServe, a list with an id that is not there is ignored as a whole.
        """
        if not device_ids:
            return self.living
        if missing := self.missing(device_ids):
            logger.warning(
                "%s: model-config.yaml: deviceIds: there is no GPU %s; the list is ignored",
                model,
                ", ".join(map(str, missing)),
            )
            return self.living
        known = {device.index: device for device in reversed(self.devices)}
        chosen = [known[index] for index in device_ids]
        return [device for device in chosen if device.uuid not in self.lost]

    def missing(self, device_ids: Sequence[int] | None) -> list[int]:
        """Return those of `device_ids` that are the number of no device."""
        known = {device.index for device in self.devices}
        return [index for index in device_ids or () if index not in known]

    def place(
        self,
        model: str,
        count: int,
        *,
        device_ids: Sequence[int] | None,
        memory: int | None,
        width: int = 1,
        start: int | None = None,
    ) -> list[Group]:
        """Reserve `width` devices for each of `count` workers, `memory` MB on each of them.

        None is memory that nobody said anything about: nothing is reserved, and room not looked at.
        `start` is the position in the list of devices (see `choose`) to begin with, by default
        whose turn it is.

        Raises:
            ModelError: there is no device left, or none with room.
        """
        devices = self.choose(device_ids, model)
        if not devices:
            raise ModelError(f"{model}: {self._mourn(device_ids)}")
        # A list of the model's own is gone through from its beginning; the common turn goes on.
        turn = start if start is not None else 0 if device_ids else self._next
        rooms = {device.uuid: self._measure_room(device) for device in devices} if memory else {}
        groups: list[Group] = []
        for _ in range(count):
            group = _pick(devices, turn, width, memory or 0, rooms)
            if group is None:
                wanted = _cut(devices, turn, width)
                raise ModelError(self._explain(model, count, memory or 0, wanted))
            for device in group if memory else ():
                rooms[device.uuid] -= memory or 0
            groups.append(group)
            turn += width
        for device in (device for group in groups for device in group):
            self._counts[device.uuid].workers += 1
            self._counts[device.uuid].promised += memory or 0
        if not device_ids and start is None:
            self._next = turn
        return groups

    def release(self, group: Iterable[Device], memory: int | None) -> None:
        """Give back what a worker had reserved."""
        for device in group:
            self._counts[device.uuid].workers -= 1
            self._counts[device.uuid].promised -= memory or 0

    def lose(self, device: Device, reason: str) -> None:
        """Use `device` no more."""
        if device.uuid not in self.lost:
            self.lost[device.uuid] = reason
            logger.error("%s (%s) is lost: %s", device, device.uuid, reason)
            self.on_lost(device)

    def regain(self, device: Device) -> None:
        """Use `device` again, which was lost."""
        if self.lost.pop(device.uuid, None) is not None:
            self._counts[device.uuid].strikes = 0
            logger.warning("%s (%s) is back", device, device.uuid)

    def strike(self, group: Group, reason: str) -> None:
        """Hear that a worker could not begin because its device failed.

        Which one of several it was nobody knows.
        """
        if len(group) == 1:
            (device,) = group
            count = self._counts[device.uuid]
            count.strikes += 1
            if count.strikes >= STRIKES:
                words = f"{count.strikes} workers in a row could not begin on it: {reason}"
                self.lose(device, words)

    def acquit(self, group: Iterable[Device]) -> None:
        """Hear that a worker has begun."""
        for device in group:
            self._counts[device.uuid].strikes = 0

    def _measure_room(self, device: Device) -> float:
        """Say how many MB can still be promised of `device`."""
        if not device.memory:
            return float("inf")
        count, free = self._counts[device.uuid], self._free(device)
        if free is None:
            return device.memory - count.promised
        used = device.memory - free
        # Ours take what they were promised little by little: others' share shows without them.
        count.others = min(count.others, used) if count.workers else used
        return min(device.memory - count.others - count.promised, free)

    def _mourn(self, device_ids: Sequence[int] | None) -> str:
        """Say that nothing is left, and why."""
        wanted = [one for one in self.devices if not device_ids or one.index in device_ids]
        reasons = [f"{device} is lost ({self.lost[device.uuid]})" for device in wanted]
        return f"{'; '.join(reasons)}; there is no other GPU that it may use"

    def _explain(self, model: str, count: int, memory: int, group: Group) -> str:
        """Say why `count` workers of `memory` MB each do not fit, at the example of `group`."""
        device = min(group, key=self._measure_room)
        known, free = self._counts[device.uuid], self._free(device)
        now = ""
        if free is not None:
            now = f" and {known.others:.0f} MB taken by other programs; {free:.0f} MB are free now"
        return (
            f"{model}: model-config.yaml: system.maxGPUMemory: {memory} MB for each of "
            f"{count} workers do not fit {device} ({device.memory} MB, of which {known.promised} "
            f"MB are promised to other workers{now}); lower it, run fewer workers, stop what else "
            "uses the GPU, or give the model other deviceIds"
        )


def _pick(
    devices: Sequence[Device], turn: int, width: int, memory: int, rooms: Mapping[str, float]
) -> Group | None:
    """Return the devices whose turn it is, or, if they have no room, those with most of it.

    None if those have none either. `rooms` are asked only if `memory` is wanted.
    """
    group = _cut(devices, turn, width)
    if not memory or all(rooms[device.uuid] >= memory for device in group):
        return group
    ways = [_cut(devices, start, width) for start in range(len(devices))]
    best = max(ways, key=lambda way: min(rooms[device.uuid] for device in way))
    return best if all(rooms[device.uuid] >= memory for device in best) else None


def _cut(devices: Sequence[Device], turn: int, width: int) -> Group:
    """Return `width` devices in a row, from `turn` on; each of them once."""
    count = len(devices)
    return tuple(devices[(turn + step) % count] for step in range(min(width, count)))
