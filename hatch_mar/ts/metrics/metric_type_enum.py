"""`ts.metrics.metric_type_enum`."""

from __future__ import annotations

from hatch_mar.model.metrics import MetricTypes

__all__ = ["MetricTypes"]
