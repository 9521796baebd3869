"""Programs of `torch.export`, in a `.pt2`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.export.passes

from hatch_mar.model.runtimes.modules import ModuleRuntime

if TYPE_CHECKING:
    from hatch_mar.model.source import Source


class ModelRuntime(ModuleRuntime):
    """Loads with `torch.export.load`."""

    def load(self, source: Source, device: Any) -> Any:  # noqa: ANN401 - torch is untyped here
        """See `Runtime.load`."""
        assert source.weights is not None
        program = torch.export.load(str(source.weights))
        if device.type != "cpu":
            program = torch.export.passes.move_to_device_pass(program, str(device))
        return program.module()
