"""In which numbers a model computes, and how its memory is laid out."""

# ruff: noqa: ANN401 - batches and outputs are nested tensors

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from hatch_mar.errors import HandlerError
from hatch_mar.model.cuda.buckets import change_tensors

IMAGES = 4
"""Dimensions of what can be laid out channels last."""
TOLERANCES = {"float32": 2e-3, "bfloat16": 4e-2, "float16": 1e-2}
"""By how much two ways to compute the same may differ, as a share of the largest value."""


class Precision:
    """Runs a model in `float32`, as it is, or under autocast in `bfloat16` or `float16`."""

    def __init__(self, name: str, device: torch.device) -> None:
        """Compute so on `device`.

        Raises:
            HandlerError: the device cannot.
        """
        self.name = name
        self._dtype = None if name == "float32" else getattr(torch, name)
        self._autocast: AbstractContextManager[Any] = nullcontext()
        if self._dtype is not None:
            try:
                # Weights that autocast keeps between layers would not outlive a graph's capture.
                self._autocast = torch.autocast(device.type, dtype=self._dtype, cache_enabled=False)
            except RuntimeError as error:
                raise HandlerError(f"cuda.precision: {name!r} is refused: {error}") from error

    def __enter__(self) -> None:
        """Begin to compute so; not from two threads."""
        self._autocast.__enter__()

    def __exit__(self, *failure: object) -> None:
        """End it."""
        self._autocast.__exit__(*failure)  # type: ignore[arg-type]

    def bind(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return a module with the signature of `model` that computes so wherever it is called."""
        if self._dtype is None:
            return model

        @functools.wraps(model.forward)
        def forward(*args: Any, **kwargs: Any) -> Any:
            with self._autocast:
                return model(*args, **kwargs)

        bound = torch.nn.Module()
        bound.model = model
        bound.forward = forward
        return bound

    def restore(self, output: Any) -> Any:
        """Return `output` with what autocast has made smaller as float32, which NumPy knows."""
        if self._dtype is None:
            return output
        return change_tensors(
            output, lambda each: each.float() if each.dtype is self._dtype else each
        )


def lay_channels_last(batch: Any) -> Any:
    """Return `batch` with its tensors of four dimensions laid out channels last."""
    return change_tensors(
        batch,
        lambda each: (
            each.contiguous(memory_format=torch.channels_last) if each.dim() == IMAGES else each
        ),
    )
