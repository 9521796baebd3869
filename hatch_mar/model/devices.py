"""Devices as a handler sees them: the worker's logical GPU, or the CPU.

Which GPU that is was decided before the worker started, by what is visible to it.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from typing import Any

from hatch_mar.model.factory import limit_gpu_memory
from hatch_mar.model.faults import find_cuda
from hatch_mar.model.protocol import MemoryUse

AMPERE = (8, 0)

logger = logging.getLogger("hatch_mar.model")


class DeviceName(str):
    """A device of a model that needs no torch; a handler may give it to torch all the same."""

    __slots__ = ()

    @property
    def type(self) -> str:
        """`cpu` or `cuda`, as `torch.device.type`."""
        return self.partition(":")[0]

    @property
    def index(self) -> int | None:  # type: ignore[override] # what torch calls it
        """The CUDA index, as `torch.device.index`."""
        number = self.partition(":")[2]
        return int(number) if number else None


def name_device(gpu_id: int | None) -> DeviceName:
    """Return the name of GPU `gpu_id`, or of the CPU."""
    return DeviceName("cpu" if gpu_id is None else f"cuda:{gpu_id}")


def apply_memory_limit(gpu_id: int | None, megabytes: int | None) -> None:
    """Keep this process below `megabytes` MB of its GPU, before anything is put there."""
    if gpu_id is None or not megabytes:
        return
    if importlib.util.find_spec("torch") is None:
        logger.warning("maxGPUMemory: only PyTorch and ONNX Runtime models can be limited")
        return
    limit_gpu_memory(gpu_id, megabytes)


class DeviceMonitor:
    """Watches what a worker's process does with its GPU. Asks PyTorch, and never loads it."""

    def __init__(self, gpu_id: int | None) -> None:
        """Watch GPU `gpu_id`; of what is on the CPU there is nothing to say."""
        self._gpu_id = gpu_id

    @property
    def used(self) -> bool:
        """Whether an error of CUDA's concerns us: we were given a GPU, or found one ourselves."""
        return self._gpu_id is not None or find_cuda() is not None

    def measure(self) -> MemoryUse | None:
        """Return the memory that PyTorch has taken at most; None if it has not begun to."""
        cuda = find_cuda()
        if cuda is None or self._gpu_id is None:
            return None
        statistics = cuda.memory_stats(self._gpu_id)
        return MemoryUse(
            allocated=_to_megabytes(statistics.get("allocated_bytes.all.peak", 0)),
            reserved=_to_megabytes(statistics.get("reserved_bytes.all.peak", 0)),
            total=_to_megabytes(cuda.get_device_properties(self._gpu_id).total_memory),
        )


def _to_megabytes(count: int) -> int:
    return -(-count >> 20)


def prefer_tensor_cores(device: Any) -> None:  # noqa: ANN401 - a torch.device
    """Let float32 products on `device` use TF32, as TorchServe's base class does."""
    if device.type != "cuda":
        return
    torch: Any = importlib.import_module("torch")
    if torch.cuda.get_device_capability(device) >= AMPERE:
        torch.set_float32_matmul_precision("high")
