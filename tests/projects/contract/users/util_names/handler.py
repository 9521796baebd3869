import ts
from ts.context import Context
from ts.handler_utils.timer import timed
from ts.handler_utils.utils import import_class
from ts.metrics.metric import Metric
from ts.metrics.process_memory_metric import get_cpu_usage
from ts.utils.util import (
    CLEANUP_REGEX,
    check_valid_pt2_backend,
    list_classes_from_module,
    map_class_to_label,
)


class Names:
    def __init__(self):
        self.context = None

    def initialize(self, context: Context):
        self.context = context

    @timed
    def count(self, data):
        return len(data)

    def handle(self, data, context):
        import os

        metric = Metric("Mine", 3, "ms", [])
        return [
            {
                "version": ts.__version__,
                "clean": CLEANUP_REGEX.sub("", "<b>a</b>&amp;"),
                "backend": [
                    check_valid_pt2_backend("inductor"),
                    check_valid_pt2_backend("nothing"),
                ],
                "class": import_class("Names", "handler").__name__
                + import_class("handler.Names").__name__,
                "labels": map_class_to_label([[0.25, 0.5]], {"3": "c", "1": "a"}, [[3, 1]]),
                "memory": get_cpu_usage(os.getpid()) > 1000,
                "metric": [metric.name, metric.unit, metric.value, sorted(metric.to_dict())],
                "count": self.count(data),
                "classes": [
                    one.__name__ for one in list_classes_from_module(__import__("handler"))
                ],
            }
        ]
