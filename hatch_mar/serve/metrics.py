"""TorchServe's metrics, under its names and in its text form.

Names are written as they are: client libraries would rename the counters (`..._total`). Label sets
end with a comma, as those of TorchServe's Java client do, because people's parsers expect it. What
is counted per request is a plain number; everything else is worked out when somebody asks.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_MICROSECONDS = 1e6
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Bounds of a handler's histograms: those of TorchServe's client library."""
_KINDS = {"counter", "gauge", "histogram"}

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
    """Everything a runner counts."""

    def __init__(self, *, hostname: str | None = None) -> None:
        """Start at zero; `hostname` is the value of that label."""
        self.hostname = hostname or socket.gethostname()
        self.queue_time = 0.0
        """Seconds that the last request begun had waited."""
        self.worker_thread_time = 0.0
        """Seconds that the last batch took beyond the handler's own time."""
        self._tallies: dict[tuple[str, str | None], Tally] = {}
        self._responses = [0] * 10
        self._load_times: dict[str, float] = {}
        self._own: dict[str, HandlerMetric] = {}
        self._collectors: list[Callable[[], Iterable[Family]]] = []

    def tally(self, model: str, version: str | None) -> Tally:
        """Return the tally of a model under a version as paths name it: None without one."""
        return self._tallies.setdefault((model, version), Tally(version))

    def count_response(self, status: int) -> None:
        """Count an HTTP response of any route by the class of its status."""
        self._responses[min(status // 100, 9)] += 1

    def set_load_time(self, worker: str, seconds: float) -> None:
        """Note how long a worker took to load its model."""
        self._load_times[worker] = seconds

    def add_collector(self, collect: Callable[[], Iterable[Family]]) -> None:
        """Ask `collect` for further metrics whenever somebody reads them."""
        self._collectors.append(collect)

    def record(self, sample: Mapping[str, Any]) -> None:
        """Take one measurement of a handler, as `Measured.as_dict` gives it."""
        labels = tuple((str(name), str(value)) for name, value in sample["dimensions"])
        names = {name for name, _ in labels}
        if "Hostname" not in names:
            labels += (("Hostname", self.hostname),)
        metric = self._own.get(sample["name"])
        if metric is None:
            kind = str(sample["type"])
            metric = HandlerMetric(kind if kind in _KINDS else "gauge", str(sample["unit"]))
            self._own[str(sample["name"])] = metric
        metric.add(labels, float(sample["value"]))

    def expose(self, names: Sequence[str] = ()) -> str:
        """Write everything, or the metrics called `names`, in the text format 0.0.4."""
        return "".join(
            write_family(family)
            for family in self.collect()
            if not names or _is_asked_for(family, names)
        )

    def collect(self) -> Iterator[Family]:
        """Yield every metric."""
        yield from self._frontend()
        for name, metric in sorted(self._own.items()):
            yield metric.family(name)
        for collect in self._collectors:
            yield from collect()

    def _frontend(self) -> Iterator[Family]:
        host = self.host_labels()
        for status in (2, 4, 5):
            value = self._responses[status]
            yield _counter(f"Requests{status}XX", "Count", [("", host, value)])
        rows = [
            (self._model_labels(model, version), tally)
            for (model, version), tally in sorted(
                self._tallies.items(), key=lambda item: (item[0][0], item[0][1] or "")
            )
        ]
        yield _counter(
            "ts_inference_requests_total",
            "Count",
            [("", labels, tally.requests) for labels, tally in rows if tally.requests],
        )
        yield _counter(
            "ts_inference_latency_microseconds",
            "Microseconds",
            [
                ("", labels, tally.inference * _MICROSECONDS)
                for labels, tally in rows
                if tally.requests
            ],
        )
        yield _counter(
            "ts_queue_latency_microseconds",
            "Microseconds",
            [("", labels, tally.queue * _MICROSECONDS) for labels, tally in rows if tally.requests],
        )
        yield gauge("QueueTime", "Milliseconds", [(host, self.queue_time * 1000)])
        yield gauge("WorkerThreadTime", "Milliseconds", [(host, self.worker_thread_time * 1000)])
        yield gauge(
            "WorkerLoadTime",
            "Milliseconds",
            [
                ((("WorkerName", worker), *host), seconds * 1000)
                for worker, seconds in sorted(self._load_times.items())
            ],
        )

    def host_labels(self) -> Labels:
        """Return the labels of what concerns the whole machine."""
        return (("Level", "Host"), ("Hostname", self.hostname))

    def _model_labels(self, model: str, version: str | None) -> Labels:
        return (
            ("model_name", model),
            ("model_version", version or "default"),
            ("hostname", self.hostname),
        )


class HandlerMetric:
    """One metric that handlers report, over all workers."""

    def __init__(self, kind: str, unit: str) -> None:
        """Start without a value."""
        self._kind = kind
        self._unit = unit
        self._values: dict[Labels, float] = {}
        self._histograms: dict[Labels, list[float]] = {}

    def add(self, labels: Labels, value: float) -> None:
        """Add to a counter, set a gauge, count in a histogram."""
        if self._kind == "gauge":
            self._values[labels] = value
        elif self._kind == "counter":
            self._values[labels] = self._values.get(labels, 0.0) + value
        else:
            counts = self._histograms.setdefault(labels, [0.0] * (len(_BUCKETS) + 2))
            for position, bound in enumerate(_BUCKETS):
                counts[position] += value <= bound
            counts[-2] += 1
            counts[-1] += value

    def family(self, name: str) -> Family:
        """Return what is to be written under `name`."""
        samples = [("", labels, value) for labels, value in sorted(self._values.items())]
        for labels, counts in sorted(self._histograms.items()):
            bounds = [*map(_number, _BUCKETS), "+Inf"]
            samples += [
                ("_bucket", (*labels, ("le", bound)), count)
                for bound, count in zip(bounds, counts, strict=False)
            ]
            samples += [("_count", labels, counts[-2]), ("_sum", labels, counts[-1])]
        return Family(name, self._kind, _help(self._kind, self._unit), samples)


def gauge(name: str, unit: str, samples: Iterable[tuple[Labels, float]]) -> Family:
    """Make a gauge of (labels, value) pairs."""
    rows = [("", labels, value) for labels, value in samples]
    return Family(name, "gauge", _help("gauge", unit), rows)


def write_family(family: Family) -> str:
    """Write one metric: HELP, TYPE and its samples."""
    lines = [
        f"# HELP {family.name} {_escape(family.help)}",
        f"# TYPE {family.name} {family.kind}",
    ]
    for suffix, labels, value in family.samples:
        pairs = "".join(f'{name}="{_escape(text, quote=True)}",' for name, text in labels)
        lines.append(f"{family.name}{suffix}{{{pairs}}} {_number(value)}")
    return "\n".join(lines) + "\n"


def _counter(name: str, unit: str, samples: Sequence[tuple[str, Labels, float]]) -> Family:
    return Family(name, "counter", _help("counter", unit), samples)


def _help(kind: str, unit: str) -> str:
    return f"Torchserve prometheus {kind} metric with unit: {unit}"


def _is_asked_for(family: Family, names: Sequence[str]) -> bool:
    suffixes = {suffix for suffix, _, _ in family.samples} | {""}
    return any(family.name + suffix in names for suffix in suffixes)


def _number(value: float) -> str:
    """Write a number as Java's client does: always with a point."""
    if value != value:  # noqa: PLR0124 - the one number that differs from itself
        return "NaN"
    if value in {float("inf"), float("-inf")}:
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))


def _escape(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text
