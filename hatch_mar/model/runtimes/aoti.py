"""Models that AOTInductor compiled ahead of time: packaged in a `.pt2`, or a bare `.so`.

TorchServe knows the latter (`pt2: {export: {aot_compile: true}}`). A library that was compiled by
another release of torch may crash the worker, or cannot be opened: it names none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch._export
import torch._inductor

from hatch_mar.errors import HandlerError
from hatch_mar.model.runtimes.modules import ModuleRuntime

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.model.source import Source


class ModelRuntime(ModuleRuntime):
    """Loads with `torch._inductor.aoti_load_package`, documented in spite of its underscore.

    A bare library takes `torch._export.aot_load`, as in TorchServe.
    """

    def load(self, source: Source, device: Any) -> Any:  # noqa: ANN401 - torch is untyped here
        """See `Runtime.load`; the model runs on the kind of device it was compiled for."""
        assert source.weights is not None
        if source.weights.suffix == ".so":
            return _load_library(source.weights, device)
        index = device.index if device.type == "cuda" else -1
        return torch._inductor.aoti_load_package(str(source.weights), device_index=index)  # noqa: SLF001


def _load_library(path: Path, device: Any) -> Any:  # noqa: ANN401 - torch is untyped here
    """Load a `.so` of `torch._export.aot_compile`, which torch means to give up."""
    load = getattr(torch._export, "aot_load", None)  # noqa: SLF001
    if load is None:
        raise HandlerError(
            f"{path.name}: torch {torch.__version__} loads no bare libraries any more: compile the "
            "model again with torch._inductor.aoti_compile_and_package, which makes a .pt2"
        )
    try:
        return load(str(path), str(device))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise HandlerError(
            f"{path.name}: cannot be loaded by torch {torch.__version__}: {reason}; compile it "
            "again with this torch, or package it as a .pt2"
        ) from error
