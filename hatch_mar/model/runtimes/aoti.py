"""Models that AOTInductor compiled ahead of time, packaged in a `.pt2`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch._inductor

from hatch_mar.model.runtimes.modules import ModuleRuntime

if TYPE_CHECKING:
    from hatch_mar.model.source import Source


class ModelRuntime(ModuleRuntime):
    """Loads with `torch._inductor.aoti_load_package`, documented in spite of its underscore."""

    def load(self, source: Source, device: Any) -> Any:  # noqa: ANN401 - torch is untyped here
        """See `Runtime.load`; the model runs on the kind of device it was compiled for."""
        assert source.weights is not None
        index = device.index if device.type == "cuda" else -1
        return torch._inductor.aoti_load_package(str(source.weights), device_index=index)  # noqa: SLF001
