"""TorchScript programs: architecture and weights in one `.pt`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from hatch_mar.errors import HandlerError
from hatch_mar.model.runtimes.modules import ModuleRuntime

if TYPE_CHECKING:
    from hatch_mar.model.source import Source


class ModelRuntime(ModuleRuntime):
    """Loads with `torch.jit.load`."""

    def load(self, source: Source, device: Any) -> Any:  # noqa: ANN401 - torch is untyped here
        """See `Runtime.load`."""
        assert source.weights is not None
        try:
            with warnings.catch_warnings():
                # TorchScript is deprecated; who serves an archive of it knows, or cannot help it.
                warnings.simplefilter("ignore", DeprecationWarning)
                return torch.jit.load(str(source.weights), map_location=device).eval()
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0]
            raise HandlerError(f"{source.weights.name}: cannot be loaded: {first}") from error
