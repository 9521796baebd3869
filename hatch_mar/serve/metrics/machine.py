"""What TorchServe publishes of the machine: processor, memory, disk, GPUs. Read when asked for."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hatch_mar.serve.devices.discovery import Device, measure
from hatch_mar.serve.metrics.store import Family, Labels, gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_GIB = 1 << 30
_KIB_PER_MIB = 1 << 10


class Load(NamedTuple):
    """Ticks of all processors since the machine started."""

    busy: int
    total: int


class Machine:
    """The machine we run on. Utilisation is that since the last time anybody asked."""

    def __init__(self, labels: Labels, devices: Callable[[], Sequence[Device]]) -> None:
        """Publish under `labels`, with the GPUs that `devices` returns by then."""
        self._labels = labels
        self._devices = devices
        self._load = read_load()

    def collect(self) -> Iterator[Family]:
        """Yield what can be read here; other systems than Linux have no /proc."""
        with suppress(OSError, ValueError, KeyError):
            yield from self._processor()
        with suppress(OSError, ValueError, KeyError):
            yield from self._memory()
        with suppress(OSError):
            yield from self._disk()
        yield from self._gpus()

    def _processor(self) -> Iterator[Family]:
        before, self._load = self._load, read_load()
        total = self._load.total - before.total
        share = (self._load.busy - before.busy) / total if total else 0.0
        busy = 100 * min(max(share, 0.0), 1.0)  # what waited for disks may become less (proc(5))
        yield gauge("CPUUtilization", [(self._labels, busy)])

    def _memory(self) -> Iterator[Family]:
        total, available = read_memory()
        used = total - available
        yield gauge("MemoryUsed", [(self._labels, used)])
        yield gauge("MemoryAvailable", [(self._labels, available)])
        yield gauge("MemoryUtilization", [(self._labels, 100 * used / total)])

    def _disk(self) -> Iterator[Family]:
        usage = shutil.disk_usage("/")
        yield gauge("DiskUsage", [(self._labels, usage.used / _GIB)])
        share = 100 * usage.used / (usage.used + usage.free)
        yield gauge("DiskUtilization", [(self._labels, share)])
        yield gauge("DiskAvailable", [(self._labels, usage.free / _GIB)])

    def _gpus(self) -> Iterator[Family]:
        usages = [(device, measure(device)) for device in self._devices()]
        rows = [(self._label(device), usage) for device, usage in usages if usage is not None]
        if rows:
            shares = [(labels, usage.memory_share) for labels, usage in rows]
            yield gauge("GPUMemoryUtilization", shares)
            used = [(labels, usage.memory) for labels, usage in rows]
            yield gauge("GPUMemoryUsed", used)
            busy = [(labels, usage.busy) for labels, usage in rows]
            yield gauge("GPUUtilization", busy)

    def _label(self, device: Device) -> Labels:
        level, *others = self._labels
        # The slices of a GPU share its index; two samples with the same labels would be refused.
        name = device.uuid if device.uuid.startswith("MIG-") else str(device.index)
        return (level, ("DeviceId", name), *others)


def read_load() -> Load:
    """Read the processors' ticks; zeros where there is no /proc."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return Load(0, 0)
    # Guests' time is counted in the first two columns already (proc(5)).
    ticks = [int(column) for column in line.split()[1:9]]
    idle = ticks[3] + ticks[4]
    return Load(sum(ticks) - idle, sum(ticks))


def read_memory() -> tuple[float, float]:
    """Read the memory's size and what a new program could take of it, in MB."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    values = {line.partition(":")[0]: line.split()[1] for line in lines}
    total, available = int(values["MemTotal"]), int(values["MemAvailable"])
    return total / _KIB_PER_MIB, available / _KIB_PER_MIB
