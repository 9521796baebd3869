"""`ts.service`."""

from __future__ import annotations

from hatch_mar.model.faults import PredictionException

__all__ = ["PredictionException"]
