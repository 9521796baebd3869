"""NVIDIA's management library where there is no GPU: a module for `sys.modules["pynvml"]`.

A test says how many GPUs there are, how much of them others take, and which are lost.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

MIB = 1 << 20


class FakeNvml:
    """GPUs called `GPU-0`, `GPU-1`, ... of 1000 MB each; a handle is its GPU's UUID."""

    NVML_DEVICE_MIG_ENABLE = 1
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NOT_FOUND = 6
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_RESET_REQUIRED = 16

    class NVMLError(Exception):
        """What every function may raise."""

        def __init__(self, value: int) -> None:
            """Be the error with that number."""
            super().__init__({15: "GPU is lost", 6: "Not Found"}.get(value, f"error {value}"))
            self.value = value

    def __init__(self, count: int) -> None:
        """Have `count` GPUs, all well, nobody using them."""
        self.uuids = [f"GPU-{index}" for index in range(count)]
        self.lost: dict[str, int] = {}
        """The number of the error that a GPU answers with, by UUID."""
        self.used: dict[str, int] = {}
        """MB in use, by UUID."""
        self.dead = False
        """Whether the driver is gone."""

    def __getattr__(self, name: str) -> Any:
        """Be without everything else that the library has."""
        if name.startswith("nvml"):
            return self._refuse
        raise AttributeError(name)

    def nvmlInit(self) -> None:  # noqa: N802 - the library's names, here and below
        if self.dead:
            raise self.NVMLError(9)

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return self.nvmlDeviceGetHandleByUUID(self.uuids[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid in self.lost or uuid not in self.uuids:
            raise self.NVMLError(self.lost.get(uuid, self.NVML_ERROR_NOT_FOUND))
        return uuid

    def nvmlDeviceGetPciInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(domain=0, bus=self.uuids.index(handle), device=0)

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return f"name of {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        used = self.used.get(handle, 0)
        return SimpleNamespace(total=1000 * MIB, used=used * MIB, free=(1000 - used) * MIB)

    def _refuse(self, *_: object) -> None:
        raise self.NVMLError(self.NVML_ERROR_NOT_SUPPORTED)
