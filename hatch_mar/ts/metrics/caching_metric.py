"""`ts.metrics.caching_metric`: what `context.metrics.add_metric_to_cache` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.model.metrics import Metric, Metrics, MetricTypes
from hatch_mar.ts.metrics.metric import Metric as OwnMetric

if TYPE_CHECKING:
    from collections.abc import Sequence


class CachingMetric(Metric):
    """A metric that a handler makes without its context."""

    def __init__(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """Report to the one model of this process; outside of workers to nobody."""
        metrics = OwnMetric.collector or Metrics("")
        super().__init__(metrics, metric_name, unit, dimension_names or (), metric_type)
