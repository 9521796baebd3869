"""`ts.metrics.metric`: a metric that a handler makes itself, without its context."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, ClassVar

from hatch_mar.model.metrics import UNITS, Metrics, MetricTypes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.metrics import Dimension


class Metric:
    """A counter with its labels; what `update` reports is sent with the model's other metrics."""

    collector: ClassVar[Metrics | None] = None
    """The metrics of the one model of this process; None outside of workers."""

    def __init__(  # noqa: PLR0917 - TorchServe's signature
        self,
        name: str,
        value: float,
        unit: str,
        dimensions: Sequence[Dimension],
        request_id: str | None = None,
        metric_method: str | None = None,
    ) -> None:
        """Describe a value; nothing is reported yet."""
        self.name = name
        self.value = value
        self.unit = UNITS.get(unit, unit)
        self.dimensions = dimensions
        self.dimension_names = [one.name for one in dimensions]
        self.dimension_values = [one.value for one in dimensions]
        self.request_id = request_id
        self.metric_method = metric_method
        self.metric_type = MetricTypes.COUNTER

    def update(self, value: float) -> None:
        """Add `value` to the counter."""
        if self.collector is not None:
            self.collector.record(
                self.name,
                value,
                unit=self.unit,
                metric_type=self.metric_type,
                dimensions=[(str(one.name), str(one.value)) for one in self.dimensions],
                request_id=self.request_id or "",
            )

    def reset(self) -> None:
        """Add nothing, as TorchServe's does."""
        self.update(0)

    def __str__(self) -> str:
        """Render as a line of TorchServe's metrics log."""
        labels = ",".join(map(str, self.dimensions))
        line = f"{self.name}.{self.unit}:{self.value}|#{labels}|#hostname:{socket.gethostname()}"
        line += f",{int(time.time())}"
        return f"{line},{self.request_id}" if self.request_id else line

    def to_dict(self) -> dict[str, Any]:
        """Return it under TorchServe's names."""
        return {
            "MetricName": self.name,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": self.dimensions,
            "Timestamp": int(time.time()),
            "HostName": socket.gethostname(),
            "RequestId": self.request_id,
        }
