"""What all runtimes whose model is a `torch.nn.Module` have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from hatch_mar.model.devices import prefer_tensor_cores
from hatch_mar.model.factory import choose_device, collate, move

if TYPE_CHECKING:
    from collections.abc import Sequence


class ModuleRuntime:
    """Batches are tensors, or tuples and mappings of them."""

    def choose_device(self, gpu_id: int | None) -> Any:  # noqa: ANN401 - torch is untyped here
        """Return the `torch.device`, and let it use its tensor cores."""
        device = choose_device(gpu_id)
        prefer_tensor_cores(device)
        return device

    def make_batch(self, values: Sequence[Any], device: Any) -> Any:  # noqa: ANN401
        """Stack `values`; see `Runtime.make_batch`."""
        if isinstance(values, torch.Tensor):
            return values.to(device)
        batch = collate(values)
        if batch is None:
            raise ValueError("the inputs are not numbers, or not of one shape")
        return move(batch, device)

    def infer(self, model: Any, batch: Any, device: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Run `model` without gradients: a mapping gives keyword arguments, a tuple positional."""
        with torch.inference_mode():
            return call_model(model, place(batch, device), *args, **kwargs)


def place(batch: Any, device: Any) -> Any:  # noqa: ANN401 - see above
    """Return `batch` on `device`."""
    return batch.to(device) if hasattr(batch, "to") else move(batch, device)


def call_model(model: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Call `model`: a mapping gives keyword arguments, a tuple positional, before any others."""
    if hasattr(batch, "to"):
        return model(batch, *args, **kwargs)
    if isinstance(batch, Mapping):
        return model(*args, **batch, **kwargs)
    return model(*(batch if isinstance(batch, tuple) else (batch,)), *args, **kwargs)
