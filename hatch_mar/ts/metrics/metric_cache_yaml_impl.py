"""`ts.metrics.metric_cache_yaml_impl`: the metrics that unit tests make of a `metrics.yaml`."""

from __future__ import annotations

from hatch_mar.model.metrics import Metrics, MetricTypes
from hatch_mar.ts.metrics.metric_cache_errors import MetricsCacheKeyError, MetricsCacheValueError
from hatch_mar.ts.utils.util import get_yaml_config


class MetricsCacheYamlImpl(Metrics):
    """The metrics of a model, with those that the file at `config_file_path` declares."""

    def __init__(self, config_file_path: str) -> None:
        """Read the file; `initialize_cache` declares what it has for models."""
        super().__init__("")
        self._parsed = get_yaml_config(config_file_path) or {}

    def initialize_cache(self) -> None:
        """Declare the metrics of the section `model_metrics`.

        Raises:
            MetricsCacheKeyError: there is no such section, type or key.
            MetricsCacheValueError: the section is empty.
        """
        if "model_metrics" not in self._parsed:
            raise MetricsCacheKeyError("the file has no section `model_metrics`")
        if not self._parsed["model_metrics"]:
            raise MetricsCacheValueError("the section `model_metrics` is empty")
        for kind, entries in self._parsed["model_metrics"].items():
            try:
                for one in entries or ():
                    arguments = one["name"], one["unit"], one["dimensions"]
                    self.add_metric_to_cache(*arguments, MetricTypes(kind))
            except (KeyError, ValueError) as error:
                raise MetricsCacheKeyError(f"model_metrics.{kind}: {error}") from error
