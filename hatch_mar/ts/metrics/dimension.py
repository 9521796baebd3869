"""`ts.metrics.dimension`."""

from __future__ import annotations

from hatch_mar.model.metrics import Dimension

__all__ = ["Dimension"]
