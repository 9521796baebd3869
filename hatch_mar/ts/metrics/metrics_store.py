"""`ts.metrics.metrics_store`: the metrics that older unit tests give to a context."""

from __future__ import annotations

from typing import Any

from hatch_mar.model.metrics import Metrics


class MetricsStore(Metrics):
    """The metrics of one batch of one model."""

    def __init__(self, request_ids: Any, model_name: str) -> None:  # noqa: ANN401 - a dict, or any id
        """Label everything with `model_name`."""
        super().__init__(model_name)
        self.request_ids = (
            request_ids if isinstance(request_ids, dict) else {0: str(request_ids or "")}
        )
