"""What runs between a batch on the device and the model's output there."""

# ruff: noqa: ANN401 - batches and outputs are what the model takes and gives

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hatch_mar.model.cuda.section import CudaOptions


class Forward:
    """The model, called as its section `cuda` says.

    Call it under `torch.inference_mode()`, on one stream, and from one thread.
    """

    def __init__(self, model: Any, *, options: CudaOptions) -> None:
        """Run `model`."""
        self.model = model
        self.options = options

    def __call__(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the output for `batch`: a tensor, a tuple (positional) or a mapping (keywords)."""
        raise NotImplementedError
