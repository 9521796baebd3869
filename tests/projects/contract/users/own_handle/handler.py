import time

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes
from ts.torch_handler.base_handler import BaseHandler


class WithMetrics(BaseHandler):
    def initialize(self, context):
        metrics = context.metrics
        self.add_metric = metrics.add_metric_to_cache(
            metric_name="InitTimes",
            unit="ms",
            dimension_names=["ModelName", "Level"],
            metric_type=MetricTypes.GAUGE,
        )
        self.add_metric.add_or_update(1.5, [context.model_name, "Model"])
        self.initialized = True

    def handle(self, data, context):
        start = time.time()
        metrics = context.metrics
        metrics.add_counter("Seen", len(data), None, [Dimension("Kind", "all")])
        metrics.add_time("Spent", round((time.time() - start) * 1000, 2), 0, "ms")
        metrics.add_size("Input", 2.0, None, "kB")
        metrics.add_percent("Full", 50)
        metrics.add_error("Mistakes", 0)
        metrics.add_metric("Own", 3, "apples", None, [], MetricTypes.HISTOGRAM)
        assert metrics.get_metric("InitTimes", MetricTypes.GAUGE).metric_name == "InitTimes"
        return [str(len(data))] * len(data)
