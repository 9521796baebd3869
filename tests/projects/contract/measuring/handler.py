import logging
import sys

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes

logger = logging.getLogger(__name__)


class Measuring:
    def initialize(self, context):
        metrics = context.metrics
        self.layered = metrics.add_metric_to_cache("Layered", "MB", ["Layer"], MetricTypes.GAUGE)
        self.layered.add_or_update(1.5, ["init"])
        metrics.add_counter("AtLoad", 1)
        print("printed at load")

    def handle(self, data, context):
        metrics = context.metrics
        print("printed in handle")
        print("written to stderr", file=sys.stderr)
        logger.info("logged at info")
        logger.warning("logged\non two lines")
        metrics.add_counter("Seen", 2, None, [Dimension("Kind", "a")])
        metrics.add_counter("Seen", 3, 0, [Dimension("Kind", "b")])
        metrics.add_counter("Plain", 1)
        metrics.add_counter("Negative", -1)
        metrics.add_time("Spent", 7.5, None, "ms", [], MetricTypes.HISTOGRAM)
        metrics.add_time("Seconds", 1, None, "s", [])
        metrics.add_size("Size", 12, None, "kB", [])
        metrics.add_percent("Full", 50.25, None, [])
        metrics.add_error("Mistakes", 1, [])
        own = [Dimension("Level", "Own")]
        metrics.add_metric("Other", 4, "apple pies", None, own, MetricTypes.GAUGE)
        metrics.add_metric("Wrong.Name", 4, "x", None, [], MetricTypes.GAUGE)
        metrics.add_metric("Fewer", 4, "x", None, [], MetricTypes.GAUGE)
        metrics.add_metric("NoNumber", "much", "x", None, [], MetricTypes.GAUGE)
        metrics.add_counter("Typed", 4, None, [])
        metrics.add_metric("Tiny", 1e-07, "x", None, [], MetricTypes.GAUGE)
        metrics.add_metric("Big", 12345678.9, "x", None, [], MetricTypes.GAUGE)
        self.layered.add_or_update(2.5, ["one"])
        self.layered.add_or_update(2.5, ["one", "too many"])
        try:
            metrics.get_metric("Unknown")
        except KeyError:
            return ["no such metric"] * len(data)
