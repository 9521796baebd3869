"""`context.metrics`: what a handler measures, kept until the worker sends it to the door.

The methods and their arguments are those of TorchServe's metrics cache. A value that makes no sense
is logged and left out, as there: no prediction fails because something could not be measured.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from hatch_mar.ts.metrics.metric_cache_errors import MetricsCacheKeyError, MetricsCacheValueError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

logger = logging.getLogger("hatch_mar.model")

UNITS = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "B": "Bytes",
    "kB": "Kilobytes",
    "MB": "Megabytes",
    "GB": "Gigabytes",
    "percent": "Percent",
    "count": "Count",
    "": "unit",
}
"""Short names of units, and how TorchServe writes them; other units stay as they are."""
DEFAULT_METRICS: Sequence[Mapping[str, Any]] = tuple(
    {"name": name, "unit": "ms", "type": "gauge", "dimensions": ["ModelName", "Level"]}
    for name in ("HandlerTime", "PredictionTime")
)
"""What is declared wherever a handler runs."""
TIME_UNITS = ("ms", "s")
SIZE_UNITS = ("B", "kB", "MB", "GB")


class MetricTypes(Enum):
    """What a value means: an increment, a reading, or an observation."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Dimension:
    """A label of a metric."""

    name: str
    value: Any

    def __str__(self) -> str:
        """Render as TorchServe's log lines do."""
        return f"{self.name}:{self.value}"

    def to_dict(self) -> dict[str, Any]:
        """Return it under TorchServe's names."""
        return {"Name": self.name, "Value": self.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One value that a handler reported."""

    name: str
    value: float
    unit: str
    """Spelled out, such as `Milliseconds`."""
    type: MetricTypes
    dimensions: tuple[tuple[str, str], ...]
    """Label names and values, in the order given."""
    request_id: str = ""
    """The requests it is about, separated by commas."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "type": self.type.value,
            "dimensions": [list(dimension) for dimension in self.dimensions],
            "requestId": self.request_id,
        }


class Metric:
    """A declared metric: a name, a unit and the names of its labels."""

    def __init__(
        self,
        metrics: Metrics,
        name: str,
        unit: str,
        dimension_names: Sequence[str],
        metric_type: MetricTypes,
    ) -> None:
        """Report to `metrics`."""
        self._metrics = metrics
        self.metric_name = name
        self.unit = unit
        self.dimension_names = list(dimension_names)
        self.metric_type = metric_type

    def add_or_update(
        self, value: float, dimension_values: Sequence[Any] = (), request_id: str = ""
    ) -> None:
        """Report `value` with one label value per label name."""
        if len(dimension_values) != len(self.dimension_names):
            logger.error(
                "metric %r: has the dimensions %s, got the values %s",
                *(self.metric_name, self.dimension_names, list(dimension_values)),
            )
            return
        labels = zip(self.dimension_names, map(str, dimension_values), strict=True)
        self._metrics.record(
            self.metric_name,
            value,
            unit=self.unit,
            metric_type=self.metric_type,
            dimensions=labels,
            request_id=request_id,
        )

    def update(
        self, value: float, request_id: str = "", dimensions: Sequence[Dimension] = ()
    ) -> None:
        """Report `value` with `dimensions` instead of the declared ones; an older form."""
        self.dimension_names = [one.name for one in dimensions]
        self.add_or_update(value, [one.value for one in dimensions], request_id)


class Metrics:
    """All metrics of one model in one worker."""

    def __init__(self, model_name: str, declared: Iterable[Mapping[str, Any]] = ()) -> None:
        """Label everything with `model_name`, as TorchServe does.

        `declared` are those that `metrics.yaml` has: `name`, `unit`, `type`, `dimensions` each.
        """
        self.model_name = model_name
        self.request_ids: Mapping[int, str] = {}
        self._declared: dict[tuple[MetricTypes, str], Metric] = {}
        self._measurements: list[Measurement] = []
        for one in (*DEFAULT_METRICS, *declared):
            kind = MetricTypes(one["type"])
            self.add_metric_to_cache(one["name"], one["unit"], one["dimensions"], kind)

    def record(
        self,
        name: str,
        value: float,
        *,
        unit: str,
        metric_type: MetricTypes,
        dimensions: Iterable[tuple[str, str]],
        request_id: str,
    ) -> None:
        """Keep a measurement until the next `drain`, in types that JSON can say.

        What is no number (one of NumPy or torch is), what would make a counter shrink, and what has
        no known type is logged instead.
        """
        try:
            measurement = Measurement(
                name=str(name),
                value=float(value),
                unit=UNITS.get(unit, str(unit)),
                type=MetricTypes(metric_type),
                dimensions=tuple(dimensions),
                request_id=str(request_id),
            )
            if measurement.type is MetricTypes.COUNTER and not measurement.value >= 0:
                raise ValueError("a counter cannot shrink")  # noqa: TRY301 - one way to say it
        except (TypeError, ValueError) as error:
            logger.error("metric %r: not updated with %r: %s", name, value, error)  # noqa: TRY400
        else:
            self._measurements.append(measurement)

    def drain(self) -> list[Measurement]:
        """Return what was measured since the last call, oldest first."""
        measurements, self._measurements = self._measurements, []
        return measurements

    def add_metric(  # noqa: PLR0917 - TorchServe's signature
        self,
        name: str,
        value: float,
        unit: str,
        idx: int | None = None,
        dimensions: Iterable[Any] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """Report `value`; `idx` says which request of the batch it is about, None all of them."""
        ids = self.request_ids
        about = ids[idx] if idx is not None and idx in ids else ",".join(ids.values())
        labels = [(str(one.name), str(one.value)) for one in dimensions or ()]
        own = [label for label, _ in labels]
        labels += [
            (label, text)
            for label, text in (("ModelName", self.model_name), ("Level", "Model"))
            if label not in own
        ]
        self._add(name, value, unit, labels, metric_type, about)

    def add_counter(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Iterable[Any] | None = None,
    ) -> None:
        """Add `value` to a counter."""
        self.add_metric(name, value, "count", idx, dimensions, MetricTypes.COUNTER)

    def add_time(  # noqa: PLR0917 - TorchServe's signature
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Iterable[Any] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Report a duration in `ms` or `s`."""
        _check_unit(name, unit, TIME_UNITS)
        self.add_metric(name, value, unit, idx, dimensions, metric_type)

    def add_size(  # noqa: PLR0917 - TorchServe's signature
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Iterable[Any] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Report a size in `B`, `kB`, `MB` or `GB`."""
        _check_unit(name, unit, SIZE_UNITS)
        self.add_metric(name, value, unit, idx, dimensions, metric_type)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Iterable[Any] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Report a percentage."""
        self.add_metric(name, value, "percent", idx, dimensions, metric_type)

    def add_error(self, name: str, value: float, dimensions: Iterable[Any] | None = None) -> None:
        """Count errors: they are about no request, and their level says so."""
        labels = [(str(one.name), str(one.value)) for one in dimensions or ()]
        if "Level" not in [label for label, _ in labels]:
            labels.append(("Level", "Error"))
        self._add(name, value, "", labels, MetricTypes.COUNTER, "")

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> Metric:
        """Declare a metric; it takes the place of one of the same name and type."""
        metric = Metric(self, metric_name, unit, dimension_names, metric_type)
        self._declared[metric_type, metric_name] = metric
        return metric

    def get_metric(
        self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER
    ) -> Metric:
        """Return a metric that was declared, here or in `metrics.yaml`, or added once.

        Raises:
            MetricsCacheKeyError: there is none with this type.
        """
        try:
            return self._declared[metric_type, metric_name]
        except KeyError:
            kind = getattr(metric_type, "value", metric_type)
            raise MetricsCacheKeyError(
                f"there is no {kind} {metric_name!r}; declare it with add_metric_to_cache"
            ) from None

    def _add(  # noqa: PLR0917 - private, and called for every measurement
        self,
        name: str,
        value: float,
        unit: str,
        labels: Sequence[tuple[str, str]],
        metric_type: MetricTypes,
        request_id: str,
    ) -> None:
        if (metric_type, name) not in self._declared:
            names = [label for label, _ in labels]
            self._declared[metric_type, name] = Metric(self, name, unit, names, metric_type)
        self.record(
            name,
            value,
            unit=unit,
            metric_type=metric_type,
            dimensions=labels,
            request_id=request_id,
        )


def _check_unit(name: str, unit: str, allowed: Sequence[str]) -> None:
    if unit not in allowed:
        raise MetricsCacheValueError(
            f"metric {name!r}: the unit must be one of {', '.join(allowed)}: {unit!r}"
        )
