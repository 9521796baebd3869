"""TorchServe's metrics, under its names and in its text form.

Names are written as they are: client libraries would rename the counters (`..._total`). Label sets
end with a comma, as those of TorchServe's Java client do, because people's parsers expect it. What
is counted per request is a plain number; everything else is worked out when somebody asks.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from hatch_mar.serve.metrics.config import (
    DEFAULT,
    HOSTNAME,
    KINDS,
    Kind,
    MetricsConfig,
    MetricSpec,
    is_label_name,
    is_metric_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from hatch_mar.serve.batching.jobs import Job

logger = logging.getLogger("hatch_mar.serve")

Mode = Literal["prometheus", "log", "legacy"]
"""TorchServe's `metrics_mode`: where metrics are published; `legacy` publishes three and logs."""
LEGACY = (
    "ts_inference_requests_total",
    "ts_inference_latency_microseconds",
    "ts_queue_latency_microseconds",
)
OWN_PREFIX = "hatch_mar_"
"""What we measure beyond TorchServe begins so, and is published whatever is declared."""
MICROSECONDS, MILLISECONDS = 1e6, 1e3
PREDICTION_TIME = "PredictionTime"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Bounds of histograms: those of TorchServe's client library."""
_PLAIN_FROM, _PLAIN_TO = 1e-3, 1e7
"""Between these Java writes numbers without an exponent (`Double.toString`)."""

Labels = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    """One metric and its samples, ready to be written."""

    name: str
    kind: str
    help: str
    samples: Sequence[tuple[str, Labels, float]]
    """Suffix of the name (of histograms), labels, value."""


class Tally:
    """What is counted per request of one (model, version in the path)."""

    __slots__ = ("inference", "queue", "requests", "version")

    def __init__(self, version: str | None) -> None:
        """Start at zero."""
        self.version = version
        self.requests = 0
        """Requests for a model that exists, accepted or not."""
        self.inference = 0.0
        """Seconds from acceptance to reply, summed."""
        self.queue = 0.0
        """Seconds from acceptance to the beginning of the batch, summed."""


class Metrics:
    """Everything a runner counts, published when somebody asks."""

    mode: Mode = "prometheus"

    def __init__(
        self,
        *,
        hostname: str | None = None,
        config: MetricsConfig = DEFAULT,
        auto_detect: bool = True,
    ) -> None:
        """Start at zero.

        Args:
            hostname: the value of that label.
            config: which metrics are published, and as what.
            auto_detect: whether handlers' metrics that `config` does not have are, too.
        """
        self.hostname = hostname or socket.gethostname()
        self.config = config
        self.queue_time = 0.0
        """Seconds that the last request begun had waited."""
        self.worker_thread_time = 0.0
        """Seconds that the last batch took beyond the handler's own time."""
        self._auto_detect = auto_detect
        self._tallies: dict[tuple[str, str | None], Tally] = {}
        self._responses = [0] * 10
        self._load_times: dict[str, float] = {}
        self._prediction_times: dict[str, float] = {}
        self._own = {name: Series(spec) for name, spec in config.backend.items()}
        self._refused: set[str] = set()
        self._collectors: list[Callable[[], Iterable[Family]]] = []
        prediction = config.backend.get(PREDICTION_TIME)
        self._each_prediction = prediction is not None and prediction.kind != "gauge"

    def tally(self, model: str, version: str | None) -> Tally:
        """Return the tally of a model under a version as paths name it: None without one."""
        return self._tallies.setdefault((model, version), Tally(version))

    def count_response(self, status: int) -> None:
        """Count an HTTP response of any route by the class of its status."""
        self._responses[status // 100] += 1

    def set_load_time(self, worker: str, seconds: float) -> None:
        """Note how long a worker took to load its model."""
        self._load_times[worker] = seconds

    def forget_load_time(self, worker: str) -> None:
        """Publish nothing more of a worker that is gone for good: others come and go."""
        self._load_times.pop(worker, None)

    def note_prediction(self, model: str, seconds: float, jobs: Sequence[Job]) -> None:  # noqa: ARG002 - for those who log
        """Note how long the worker was at a batch, the requests of `jobs`."""
        self._prediction_times[model] = seconds
        if self._each_prediction:
            labels = model, "Model", self.hostname
            self._own[PREDICTION_TIME].add(labels, seconds * MILLISECONDS)

    def add_collector(self, collect: Callable[[], Iterable[Family]]) -> None:
        """Ask `collect` for further metrics whenever somebody reads them."""
        self._collectors.append(collect)

    def record(self, sample: Mapping[str, Any]) -> None:
        """Take one measurement of a handler, as `Measured.as_dict` gives it.

        What cannot be published is left out, and said once.
        """
        name = str(sample["name"])
        try:
            series = self._own.get(name)
            if series is None:
                if not self._auto_detect:
                    return
                series = self._detect(name, sample)
            series.add_named(self._complete(sample["dimensions"]), float(sample["value"]))
        except ValueError as error:
            self._refuse(name, str(error))

    def expose(self, names: Sequence[str] = ()) -> str:
        """Write everything, or the samples called `names`, in the text format 0.0.4."""
        return "".join(
            write_family(family)
            for family in (_select(one, names) if names else one for one in self.collect())
            if family.samples or not names
        )

    def collect(self) -> Iterator[Family]:
        """Yield every metric that is published."""
        found = {family.name: family for family in self.measure()}
        for name, spec in self.config.frontend.items():
            yield self._publish(spec, found.get(name))
        for name, family in sorted(found.items()):
            if name.startswith(OWN_PREFIX) and family.samples:
                yield family
        for model, seconds in self._prediction_times.items():
            if PREDICTION_TIME in self._own and not self._each_prediction:
                labels = model, "Model", self.hostname
                self._own[PREDICTION_TIME].add(labels, round(seconds * MILLISECONDS, 2))
        for _, series in sorted(self._own.items()):
            yield series.family()

    def measure(self) -> Iterator[Family]:
        """Yield what the server itself knows, declared or not."""
        yield from self._frontend()
        for collect in self._collectors:
            yield from collect()

    def host_labels(self) -> Labels:
        """Return the labels of what concerns the whole machine."""
        return (("Level", "Host"), (HOSTNAME, self.hostname))

    def _publish(self, spec: MetricSpec, family: Family | None) -> Family:
        """Return what is known of `spec`, with its own names for the labels."""
        samples = [
            (suffix, _label(spec.dimensions, [value for _, value in labels]), amount)
            for suffix, labels, amount in (family.samples if family else ())
            if len(labels) == len(spec.dimensions)
        ]
        return Family(spec.name, spec.kind, spec.help, samples)

    def _complete(self, dimensions: Sequence[Sequence[str]]) -> Labels:
        labels = tuple((str(name), str(value)) for name, value in dimensions)
        if any(name == HOSTNAME for name, _ in labels):
            return labels
        return (*labels, (HOSTNAME, self.hostname))

    def _refuse(self, name: str, reason: str) -> None:
        """Say, once, why a handler's metric cannot be published."""
        if name not in self._refused:
            self._refused.add(name)
            logger.warning("metric %r is not published: %s", name, reason)

    def _detect(self, name: str, sample: Mapping[str, Any]) -> Series:
        """Begin a series for a handler's metric that nobody has declared."""
        if name in self.config.frontend:
            raise ValueError("the server has one of that name")
        if not is_metric_name(name):
            raise ValueError("use letters, digits and underscores")
        kind = sample["type"]
        spec = MetricSpec(
            name=name,
            kind=cast("Kind", kind) if kind in KINDS else "gauge",
            unit=str(sample["unit"]),
            dimensions=(),
        )
        self._own[name] = series = Series(spec, declared=False)
        return series

    def _frontend(self) -> Iterator[Family]:
        host = self.host_labels()
        for status in (2, 4, 5):
            yield _family("counter", f"Requests{status}XX", [(host, self._responses[status])])
        names = "model_name", "model_version", "hostname"
        rows = [
            (_label(names, (model, version or "default", self.hostname)), tally)
            for (model, version), tally in sorted(
                self._tallies.items(), key=lambda item: (item[0][0], item[0][1] or "")
            )
            if tally.requests
        ]
        requests, latency, queue = LEGACY
        yield _family("counter", requests, [(labels, one.requests) for labels, one in rows])
        yield _family(
            "counter", latency, [(labels, one.inference * MICROSECONDS) for labels, one in rows]
        )
        yield _family(
            "counter", queue, [(labels, one.queue * MICROSECONDS) for labels, one in rows]
        )
        yield _family("gauge", "QueueTime", [(host, self.queue_time * MILLISECONDS)])
        yield _family("gauge", "WorkerThreadTime", [(host, self.worker_thread_time * MILLISECONDS)])
        yield _family(
            "gauge",
            "WorkerLoadTime",
            [
                ((("WorkerName", worker), *host), seconds * MILLISECONDS)
                for worker, seconds in sorted(self._load_times.items())
            ],
        )


class Series:
    """The values of one metric that are kept from event to event, by labels."""

    def __init__(self, spec: MetricSpec, *, declared: bool = True) -> None:
        """Start without a value; what was not declared brings the names of its own labels."""
        self.spec = spec
        self._declared = declared
        self._values: dict[Labels, float] = {}
        self._histograms: dict[Labels, list[float]] = {}

    def add_named(self, labels: Labels, value: float) -> None:
        """Take a value with the names that its labels have where it was measured.

        Raises:
            ValueError: these are no labels of this metric, or a counter would shrink.
        """
        if self._declared:
            self.add([text for _, text in labels], value)
            return
        for name, _ in labels:
            if not is_label_name(name):
                raise ValueError(f"{name!r} is no name of a label")
        if len({name for name, _ in labels}) < len(labels):
            raise ValueError("it has two labels of one name")
        self._add(labels, value)

    def add(self, values: Sequence[str], value: float) -> None:
        """Take a value with the values of its labels, in the declared order.

        Raises:
            ValueError: there are more or fewer than labels, or a counter would shrink.
        """
        names = self.spec.dimensions
        if len(values) != len(names):
            raise ValueError(f"has the dimensions {', '.join(names)}, got {', '.join(values)}")
        self._add(_label(names, values), value)

    def _add(self, labels: Labels, value: float) -> None:
        """Add to a counter, set a gauge, count in a histogram."""
        if self.spec.kind == "gauge":
            self._values[labels] = value
        elif self.spec.kind == "counter":
            if not value >= 0:
                raise ValueError(f"a counter cannot grow by {value}")
            self._values[labels] = self._values.get(labels, 0.0) + value
        else:
            counts = self._histograms.setdefault(labels, [0.0] * (len(_BUCKETS) + 2))
            for position, bound in enumerate(_BUCKETS):
                counts[position] += value <= bound
            counts[-2] += 1
            counts[-1] += value

    def family(self) -> Family:
        """Return what is to be written."""
        spec = self.spec
        samples = [("", labels, value) for labels, value in sorted(self._values.items())]
        for labels, counts in sorted(self._histograms.items()):
            bounds = [*map(java_number, _BUCKETS), "+Inf"]
            samples += [
                ("_bucket", (*labels, ("le", bound)), count)
                for bound, count in zip(bounds, counts, strict=False)
            ]
            samples += [("_count", labels, counts[-2]), ("_sum", labels, counts[-1])]
        return Family(spec.name, spec.kind, spec.help, samples)


def gauge(name: str, samples: Iterable[tuple[Labels, float]]) -> Family:
    """Make a gauge of (labels, value) pairs; its help is that of its declaration."""
    return _family("gauge", name, samples)


def write_family(family: Family) -> str:
    """Write one metric: HELP, TYPE and its samples."""
    lines = [
        f"# HELP {family.name} {_escape(family.help)}",
        f"# TYPE {family.name} {family.kind}",
    ]
    for suffix, labels, value in family.samples:
        pairs = "".join(f'{name}="{_escape(text, quote=True)}",' for name, text in labels)
        lines.append(f"{family.name}{suffix}{{{pairs}}} {java_number(value)}")
    return "\n".join(lines) + "\n"


def java_number(value: float) -> str:
    """Write a number as Java's client does: `1.0`, `1.23456789E7`."""
    value = float(value)
    if value != value:  # noqa: PLR0124 - the one number that differs from itself
        return "NaN"
    if value in {float("inf"), float("-inf")}:
        return "+Inf" if value > 0 else "-Inf"
    if value == 0 or _PLAIN_FROM <= abs(value) < _PLAIN_TO:
        return repr(value)
    from decimal import Decimal  # noqa: PLC0415 - such numbers are rare

    exact = Decimal(repr(value)).normalize()
    sign, digits, _ = exact.as_tuple()
    text = "".join(map(str, digits))
    return f"{'-' * sign}{text[0]}.{text[1:] or '0'}E{exact.adjusted()}"


def _family(kind: Kind, name: str, rows: Iterable[tuple[Labels, float]]) -> Family:
    return Family(name, kind, "", [("", labels, value) for labels, value in rows])


def _label(names: Sequence[str], values: Sequence[str]) -> Labels:
    return tuple(zip(names, values, strict=True))


def _select(family: Family, names: Sequence[str]) -> Family:
    """Return the samples whose own names are asked for: of a histogram `..._count`, not its."""
    samples = [one for one in family.samples if family.name + one[0] in names]
    return family._replace(samples=samples)


def _escape(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text
