"""Whether the machine has room for one more worker like those that run.

On the CPU it has if memory and processors have. A new worker takes as much memory of its own as the
greatest of the others: weights that are mapped are there already, and are shared. Where workers
compute, one more brings nothing once no processor is idle, whatever their number: so what they use
is measured, and not guessed from the number of cores, which says nothing of workers that wait
(for a disk, for another service). A GPU is asked how much of its memory is free.

Other systems than Linux say none of this; nothing holds workers back there but `maxWorkers`.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hatch_mar.serve.devices.discovery import measure
from hatch_mar.serve.metrics.machine import read_memory
from hatch_mar.serve.scaling.cgroups import read_memory_room, read_quotas

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hatch_mar.serve.devices.discovery import Device, Usage

RESERVE = 0.05
"""The share of the memory that is left free: workers that run may grow, too."""
LEAST_GAIN = 0.5
"""How much of its computing a new worker must find processors for."""
WAITS = 0.1
"""Workers that use less of a core than this wait for something else."""
_MIB = 1 << 20


class Memory(NamedTuple):
    """The machine's memory, or what our control groups leave us of it; bytes."""

    total: float
    available: float


class Glance(NamedTuple):
    """What the processors have done until one moment."""

    at: float
    idle: float
    """Core seconds in which the processors that we may use had nothing to do."""
    quotas: tuple[tuple[float, float], ...]
    """Cores allowed, and core seconds used."""
    used: Mapping[int, float]
    """Core seconds of each worker, by its number."""


def glance(used: Mapping[int, float]) -> Glance:
    """Look at the processors; `used` are the core seconds of each worker, by its number."""
    return Glance(time.monotonic(), _read_idle(), tuple(read_quotas()), used)


def find_crowding(before: Glance, after: Glance) -> str:
    """Say why one more worker would compute nothing more; nothing if it would."""
    elapsed = after.at - before.at
    steady = [after.used[one] - before.used[one] for one in after.used if one in before.used]
    if elapsed <= 0 or not steady:
        return ""
    each = sum(steady) / len(steady) / elapsed
    spare = (after.idle - before.idle) / elapsed
    for (cores, used), (_, used_before) in zip(after.quotas, before.quotas, strict=False):
        spare = min(spare, cores - (used - used_before) / elapsed)
    if each < WAITS or spare >= LEAST_GAIN * each:
        return ""
    return (
        f"a worker computes on {each:.1f} cores, and {max(spare, 0):.1f} are idle: "
        "one more would bring nothing"
    )


def read_available() -> Memory | None:
    """Read what memory there is for us; None if that cannot be told."""
    try:
        total, available = (value * _MIB for value in read_memory())
    except (OSError, ValueError, KeyError):
        return None
    limit, left = read_memory_room()
    return Memory(min(total, limit), min(available, left))


def find_want_of_memory(needed: float, memory: Memory) -> str:
    """Say why `memory` does not hold one worker more that takes `needed` bytes; nothing if so."""
    reserve = RESERVE * memory.total
    if memory.available - needed >= reserve:
        return ""
    return (
        f"it would take {needed / _MIB:.0f} MB, and {memory.available / _MIB:.0f} MB are "
        f"available, of which {reserve / _MIB:.0f} MB stay free"
    )


def find_full_device(
    device: Device,
    workers: Sequence[Device],
    ask: Callable[[Device], Usage | None] = measure,
) -> str:
    """Say why `device` does not hold one more of our workers, which are on `workers`; or nothing.

    What a worker takes of a GPU is what is in use there, divided by those of ours: too much rather
    than too little, where others use it as well.
    """
    usage = ask(device)
    if usage is None:
        return ""
    shares = []
    for other in set(workers):
        there = ask(other)
        if there is not None:
            shares.append(there.memory / workers.count(other))
    needed, free = min(shares, default=0.0), device.memory - usage.memory
    if free >= needed:
        return ""
    return f"it would take {needed:.0f} MB of {device}, and {free:.0f} MB are free"


def _read_idle() -> float:
    """Return for how many core seconds the processors that we may use have been idle; 0 unknown."""
    with suppress(OSError, ValueError, AttributeError):
        ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        columns = [line.split() for line in lines]
        # Waiting for a disk is being idle (proc(5), columns 4 and 5).
        ticks = sum(int(row[4]) + int(row[5]) for row in columns if row and row[0] in ours)
        return ticks / os.sysconf("SC_CLK_TCK")
    return 0.0
