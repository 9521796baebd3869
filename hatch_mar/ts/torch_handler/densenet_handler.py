"""`ts.torch_handler.densenet_handler`."""

from __future__ import annotations

from hatch_mar.model.handlers.densenet_handler import DenseNetHandler

__all__ = ["DenseNetHandler"]
