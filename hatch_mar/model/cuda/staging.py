"""Page-locked memory that batches pass through on their way to the device."""

# ruff: noqa: ANN401 - batches are whatever the model takes

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatch_mar.model.cuda.layer import Layer


def transform(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return `value` with every plain tensor in it changed.

    Looks into tuples, lists and dicts of exactly these types. Anything else stays as it is, and so
    do tensors that are no plain block of memory: nobody but their makers knows how to copy them.
    """
    kind = type(value)
    if _is_plain_tensor(value):
        return change(value)
    if kind is dict:
        return {key: transform(item, change) for key, item in value.items()}
    if kind is list or kind is tuple:
        return kind(transform(item, change) for item in value)
    return value


def list_tensors(value: Any) -> list[Any]:
    """Return the plain tensors in `value`, also in subclasses of tuples, lists and mappings."""
    if _is_plain_tensor(value):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [each for item in value for each in list_tensors(item)] if _is_sequence(value) else []


class Slot:
    """What one batch has to itself between its preparation and its end: staging memory and events.

    The memory grows with the batches, and is used again by the next one that has the slot. Copies
    from it are over when `done` is: whoever gives the slot away has waited for that, and says so.
    """

    def __init__(self, layer: Layer) -> None:
        """Have no memory yet."""
        self.uploaded = layer.event()
        """Behind the copies to the device."""
        self.computed = layer.event()
        """Behind the model."""
        self.done = layer.event()
        """Behind the copies back."""
        self.in_use = False
        """Whether the device may still read or write what belongs to the batch."""
        self._layer = layer
        self._blocks: dict[tuple[int, Any], Any] = {}

    def upload(self, value: Any) -> Any:
        """Return `value` with the tensors in host memory copied by the current stream.

        What is on the device already stays there.
        """
        position = 0
        self.in_use = True

        def change(tensor: Any) -> Any:
            nonlocal position
            if self._layer.holds(tensor):
                return tensor
            position += 1
            return self._layer.upload(self._stage(position, tensor))

        return transform(value, change)

    def _stage(self, position: int, tensor: Any) -> Any:
        """Return `tensor` in page-locked memory, laid out as it is."""
        key, count = (position, tensor.dtype), tensor.numel()
        block = self._blocks.get(key)
        if block is None or block.numel() < count:
            # The old one goes back to its pool, which minds copies that are not over.
            block = self._blocks[key] = self._layer.pin(tensor.reshape(-1))
        staged = block[:count].as_strided(tensor.shape, _lay_out(tensor))
        return staged.copy_(tensor.detach())


def _lay_out(tensor: Any) -> tuple[int, ...]:
    """Return the strides of `tensor`, if it is without gaps, else those of a contiguous one."""
    torch: Any = importlib.import_module("torch")
    strides: tuple[int, ...] = torch.empty_like(tensor, device="meta").stride()
    return strides


def _is_plain_tensor(value: Any) -> bool:
    torch: Any = importlib.import_module("torch")
    kinds = (torch.Tensor, torch.nn.Parameter)
    plain = type(value) in kinds and value.layout is torch.strided
    return plain and not value.is_quantized and not value.is_meta


def _is_sequence(value: Any) -> bool:
    return isinstance(value, tuple | list)
