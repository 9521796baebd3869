"""`ts.torch_handler.contractions`."""

from __future__ import annotations

from hatch_mar.model.handlers.contractions import CONTRACTION_MAP

__all__ = ["CONTRACTION_MAP"]
