"""Programs of `torch.export`, in a `.pt2`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
import torch.export.passes

from hatch_mar.model.runtimes.modules import ModuleRuntime
from hatch_mar.model.tracebacks import summarise

if TYPE_CHECKING:
    from hatch_mar.model.source import Source

logger = logging.getLogger("hatch_mar.model")


class ModelRuntime(ModuleRuntime):
    """Loads with `torch.export.load`."""

    def load(self, source: Source, device: Any) -> Any:  # noqa: ANN401 - torch is untyped here
        """See `Runtime.load`."""
        assert source.weights is not None
        program = torch.export.load(str(source.weights))
        if device.type != "cpu":
            program = torch.export.passes.move_to_device_pass(program, str(device))
        if source.cuda is not None and source.cuda.aot_inductor:
            return _compile(program, device)
        return program.module()


def _compile(program: Any, device: Any) -> Any:  # noqa: ANN401 - torch is untyped here
    """Return `program` compiled for `device`; where that fails, as it is, with a warning."""
    from hatch_mar.model.cuda.ahead import compile_program  # noqa: PLC0415 - few models ask for it

    try:
        return compile_program(program, device)
    except Exception as error:  # noqa: BLE001 - a compiler may raise anything, and none must stop the model
        logger.warning("cuda.aotInductor: failed, the model runs as it is: %s", summarise(error))
        return program.module()
