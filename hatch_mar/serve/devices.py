"""GPUs: which there are, and which worker gets which.

They are found through NVML, which answers without creating a CUDA context: the door holds no device
memory. Indices are physical, in PCI order; a worker is given its device by UUID and sees it as 0.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from hatch_mar.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

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


class Placement:
    """Which worker runs where. Round robin over the GPUs, across all models of a runner."""

    def __init__(self, devices: Iterable[Device]) -> None:
        """Place workers on `devices`."""
        self.devices = list(devices)
        self._next = 0
        self._reserved: dict[str, int] = {}

    def choose(self, device_ids: Sequence[int] | None, model: str) -> list[Device]:
        """Return the devices a model may use: those of its `deviceIds`, or all.

        As in TorchServe, a list with an id that is not there is ignored as a whole.
        """
        if not device_ids:
            return self.devices
        if missing := self.missing(device_ids):
            logger.warning(
                "%s: model-config.yaml: deviceIds: there is no GPU %s; the list is ignored",
                model,
                ", ".join(map(str, missing)),
            )
            return self.devices
        known = {device.index: device for device in reversed(self.devices)}
        return [known[index] for index in device_ids]

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
        stride: int = 1,
    ) -> list[Device]:
        """Reserve a device for each of `count` workers, `memory` MB each (None: unknown).

        A worker that takes `stride` devices is given the first of them.

        Raises:
            ModelError: the memory that workers were promised would exceed a device's.
        """
        devices = self.choose(device_ids, model)
        # A list of the model's own is gone through from its beginning; the common turn goes on.
        start = 0 if device_ids else self._next
        placed = [
            devices[(start + turn) % len(devices)] for turn in range(0, count * stride, stride)
        ]
        reserved = dict(self._reserved)
        for device in placed:
            reserved[device.uuid] = reserved.get(device.uuid, 0) + (memory or 0)
            if device.memory and reserved[device.uuid] > device.memory:
                raise ModelError(
                    f"{model}: model-config.yaml: system.maxGPUMemory: {memory} MB for each of "
                    f"{count} workers do not fit {device} ({device.memory} MB, of which "
                    f"{self._reserved.get(device.uuid, 0)} MB are promised to other workers); "
                    "lower it, run fewer workers, or give the model other deviceIds"
                )
        self._reserved = reserved
        if not device_ids:
            self._next += count * stride
        return placed

    def release(self, device: Device, memory: int | None) -> None:
        """Give back what a worker had reserved."""
        self._reserved[device.uuid] = self._reserved.get(device.uuid, 0) - (memory or 0)


def measure(device: Device) -> Usage | None:
    """Ask how a GPU is doing; None if it cannot be told."""
    return _ask(lambda nvml: _read_usage(nvml, device), None) if device.memory else None


def _ask(question: Callable[[Any], Answer], otherwise: Answer) -> Answer:
    """Put a question to NVML; `otherwise` is the answer where there is none."""
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


def _read_usage(nvml: Any, device: Device) -> Usage:  # noqa: ANN401 - as above
    handle = nvml.nvmlDeviceGetHandleByUUID(device.uuid)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
    except nvml.NVMLError:
        busy = 0  # of a MIG slice nobody knows
    share = 100 * memory.used / memory.total
    return Usage(memory=memory.used / _MIB, memory_share=share, busy=busy)


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
