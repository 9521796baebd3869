"""GPUs: which there are, and how they are.

NVML is asked, which answers without creating a CUDA context: the door holds no device memory. Every
question opens NVML and closes it again, so that a GPU can be reset while we run. Indices are
physical, in PCI order; a worker is given its device by UUID and sees it as 0.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

logger = logging.getLogger("hatch_mar.serve")

_MIB = 1 << 20
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU, or one MIG slice of one."""

    index: int
    """Physical index in PCI order; the slices of a GPU share it."""
    uuid: str
    """`GPU-...` or `MIG-...`: what CUDA_VISIBLE_DEVICES understands without ambiguity."""
    name: str = ""
    memory: int = 0
    """MB in all; 0 if that cannot be told, as where it is the machine's own."""

    def __str__(self) -> str:
        """Name it as `describe` and health do."""
        return f"gpu:{self.index}"


class Driver(NamedTuple):
    """The NVIDIA driver."""

    version: str
    cuda: int
    """The newest CUDA it can run: 1000 times the major number, plus 10 times the minor one."""


class Usage(NamedTuple):
    """How a GPU is doing."""

    memory: float
    """MB in use."""
    memory_share: float
    """Percent of its memory in use."""
    busy: float
    """Percent of the last while in which it computed."""
    free: float = 0
    """MB that a new process could take."""


def discover(environ: Mapping[str, str]) -> list[Device]:
    """Return the GPUs that `environ` lets us use, in the order in which it names them."""
    return select(_ask(list_devices, []), environ.get("CUDA_VISIBLE_DEVICES"))


def read_driver() -> Driver | None:
    """Return the NVIDIA driver; None if there is none, or NVML cannot be asked."""
    return _ask(
        lambda nvml: Driver(
            version=nvml.nvmlSystemGetDriverVersion(), cuda=nvml.nvmlSystemGetCudaDriverVersion()
        ),
        None,
    )


def select(devices: Sequence[Device], visible: str | None) -> list[Device]:
    """Apply CUDA_VISIBLE_DEVICES as CUDA does: the first name of nothing ends the list.

    An entry is an index, or a UUID or the unambiguous beginning of one. Whole GPUs that are split
    by MIG are not among `devices`, their slices are; an index then means the GPU's first slice.
    """
    if visible is None:
        return list(devices)
    chosen: list[Device] = []
    for entry in visible.split(","):
        device = _find(devices, entry.strip())
        if device is None or device in chosen:
            # CUDA takes a device that is named twice for an error: no device at all.
            return chosen if device is None else []
        chosen.append(device)
    return chosen


def _find(devices: Sequence[Device], entry: str) -> Device | None:
    if entry.isdecimal():
        return next((device for device in devices if device.index == int(entry)), None)
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    found = [device for device in devices if device.uuid.startswith(entry)]
    return found[0] if len(found) == 1 else None


def measure(device: Device) -> Usage | None:
    """Ask how a GPU is doing; None if it cannot be told."""
    return _ask(lambda nvml: _read_usage(nvml, device), None) if device.memory else None


def read_free(device: Device) -> float | None:
    """Return the MB that a new process could take of a GPU; None if it cannot be told."""
    usage = measure(device)
    return None if usage is None else usage.free


def find_lost(devices: Sequence[Device]) -> dict[str, str] | None:
    """Return those of `devices` that NVML has lost: by UUID, with what it says of them.

    One that NVML has other trouble with is not lost. None where NVML cannot be asked at all.
    """
    return _ask(lambda nvml: _ask_lost(nvml, devices), None)


def _ask(question: Callable[[Any], Answer], otherwise: Answer) -> Answer:
    """Put a question to NVML; `otherwise` is the answer where there is none."""
    if not _has_driver():
        return otherwise
    try:
        import pynvml  # noqa: PLC0415 - machines without a GPU should not pay for it
    except ImportError:
        return otherwise
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        logger.debug("no GPUs: %s", error)
        return otherwise
    try:
        return question(pynvml)
    except pynvml.NVMLError as error:
        logger.warning("NVML: %s", error)
        return otherwise
    finally:
        pynvml.nvmlShutdown()


def _has_driver() -> bool:
    """Tell whether there is a library to ask, in a tenth of what importing pynvml takes."""
    if sys.platform != "linux" or "pynvml" in sys.modules:
        return True
    import ctypes  # noqa: PLC0415 - as pynvml does

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def list_devices(nvml: Any) -> list[Device]:  # noqa: ANN401 - untyped library
    """Return all GPUs that `nvml` knows, or their MIG slices, in PCI order."""
    found = []
    for number in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
            found.append((_pci_address(nvml, handle), handle))
        except nvml.NVMLError as error:
            logger.warning("NVML: GPU %d is not used: %s", number, error)  # it has fallen off
    # NVML numbers by PCI address already; sorting makes it a promise.
    found.sort(key=lambda pair: pair[0])
    return [
        device
        for index, (_, handle) in enumerate(found)
        for device in _read_device(nvml, index, handle)
    ]


def _ask_lost(nvml: Any, devices: Sequence[Device]) -> dict[str, str]:  # noqa: ANN401 - as above
    fatal = {
        nvml.NVML_ERROR_GPU_IS_LOST,
        nvml.NVML_ERROR_NOT_FOUND,
        nvml.NVML_ERROR_RESET_REQUIRED,
    }
    lost = {}
    for device in devices:
        try:
            nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(device.uuid))
        except nvml.NVMLError as error:
            if error.value in fatal:
                lost[device.uuid] = f"NVML: {error}"
    return lost


def _read_usage(nvml: Any, device: Device) -> Usage:  # noqa: ANN401 - as above
    handle = nvml.nvmlDeviceGetHandleByUUID(device.uuid)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
    except nvml.NVMLError:
        busy = 0  # of a MIG slice nobody knows
    share = 100 * memory.used / memory.total
    free = memory.free / _MIB
    return Usage(memory=memory.used / _MIB, memory_share=share, busy=busy, free=free)


def _pci_address(nvml: Any, handle: Any) -> tuple[int, int, int]:  # noqa: ANN401 - as above
    pci = nvml.nvmlDeviceGetPciInfo(handle)
    return pci.domain, pci.bus, pci.device


def _read_device(nvml: Any, index: int, handle: Any) -> list[Device]:  # noqa: ANN401 - as above
    """Return the GPU, or its MIG slices where it is split."""
    try:
        split = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError:
        split = False
    handles = [handle]
    if split:
        handles = []
        for slot in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with suppress(nvml.NVMLError):  # an empty slot
                handles.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot))
    return [
        Device(
            index=index,
            uuid=nvml.nvmlDeviceGetUUID(part),
            name=nvml.nvmlDeviceGetName(part),
            memory=_read_memory(nvml, part),
        )
        for part in handles
    ]


def _read_memory(nvml: Any, handle: Any) -> int:  # noqa: ANN401 - as above
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total) // _MIB
    except nvml.NVMLError:
        return 0
