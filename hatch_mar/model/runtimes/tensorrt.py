"""TensorRT engines inside TorchScript, as Torch-TensorRT saves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch_tensorrt  # type: ignore[import-not-found]  # noqa: F401 - importing it registers the engine's class

from hatch_mar.errors import HandlerError
from hatch_mar.model.runtimes import torchscript

if TYPE_CHECKING:
    from hatch_mar.model.source import Source


class ModelRuntime(torchscript.ModelRuntime):
    """A TorchScript program that calls an engine, which exists on a GPU only."""

    def load(self, source: Source, device: Any) -> Any:  # noqa: ANN401 - torch is untyped here
        """See `Runtime.load`."""
        if device.type != "cuda":
            raise HandlerError("runtime 'tensorrt': needs a GPU, and this worker was given none")
        assert source.weights is not None
        if source.weights.suffix in (".engine", ".plan"):
            raise HandlerError(
                f"{source.weights.name}: a bare TensorRT engine; save the module that "
                "torch_tensorrt compiled as TorchScript (.pt) instead"
            )
        return super().load(source, device)
