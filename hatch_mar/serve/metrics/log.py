"""Metrics that are told one by one as they happen: TorchServe's modes `log` and `legacy`.

    CPUUtilization.Percent:12.5|#Level:Host|#hostname:vm,timestamp:1795280647
    Seen.Count:1.0|#ModelName:m,Level:Model|#hostname:vm,requestID:6f1c6b1e-...,timestamp:1795280648

It also keeps what the operator has declared as another type than TorchServe's own file does, such
as `QueueTime` as a histogram: there, too, every event counts for itself. What is counted on the way
of a request is an attribute, here as in `Metrics`; only that setting it does more.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from hatch_mar.serve.metrics.config import DEFAULT, Kind, MetricsConfig, MetricSpec
from hatch_mar.serve.metrics.store import (
    LEGACY,
    MICROSECONDS,
    MILLISECONDS,
    OWN_PREFIX,
    PREDICTION_TIME,
    Family,
    Labels,
    Metrics,
    Mode,
    Series,
    Tally,
    java_number,
)
from hatch_mar.serve.packing import read_request_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hatch_mar.serve.batching.jobs import Job

TS_METRICS, MODEL_METRICS = "TS_METRICS", "MODEL_METRICS"
"""TorchServe's names for the logs of the server's metrics and of handlers'."""


_UNITS = ("megabytes", "seconds", "milliseconds", "percent")
Write = Callable[[str, str], object]
"""Takes a line, after the name of the log that it is for."""


def make_metrics(
    *,
    mode: Mode = "prometheus",
    config: MetricsConfig = DEFAULT,
    auto_detect: bool = True,
    hostname: str | None = None,
    write: Write | None = None,
) -> Metrics:
    """Return metrics that are published as `mode` says.

    Lines go to `write`, by default to loggers of those names.
    """
    if mode != "prometheus" or _list_odd(config):
        return EventMetrics(
            mode,
            hostname=hostname,
            config=config,
            auto_detect=auto_detect,
            write=write or write_to_logger,
        )
    return Metrics(hostname=hostname, config=config, auto_detect=auto_detect)


def write_to_logger(log: str, line: str) -> None:
    """Log a line at INFO."""
    logging.getLogger(log).info("%s", line)


def _declare(family: Family, labels: Labels) -> MetricSpec:
    """Return what TorchServe's file would say of a metric of our own, whose name has the unit."""
    unit = family.name.removesuffix("_total").rpartition("_")[2]
    return MetricSpec(
        name=family.name,
        kind=cast("Kind", family.kind),
        unit=unit.capitalize() if unit in _UNITS else "Count",
        dimensions=tuple(name for name, _ in labels),
    )


def _list_odd(config: MetricsConfig) -> list[MetricSpec]:
    """Return what is declared as another type than the server's own numbers have."""
    usual = DEFAULT.frontend
    return [
        spec
        for name, spec in config.frontend.items()
        if name in usual and usual[name].kind != spec.kind
    ]


class EventTally(Tally):
    """A tally whose every change is told."""

    __slots__ = ("_metrics", "_values")

    def __init__(self, model: str, version: str | None, metrics: EventMetrics) -> None:
        """Tell `metrics`."""
        self._metrics: EventMetrics | None = None
        super().__init__(version)
        self._metrics = metrics
        self._values = model, version or "default", metrics.hostname

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 - any of its slots
        """Set an attribute, and tell by how much it has grown."""
        known = _TALLIED.get(name)
        if known is not None and self._metrics is not None:
            metric, scale = known
            grown = (value - getattr(self, name)) * scale
            self._metrics.tell(metric, self._values, round(grown, 3))
        super().__setattr__(name, value)


_TALLIED: Mapping[str, tuple[str, float]] = {
    "requests": (LEGACY[0], 1),
    "inference": (LEGACY[1], MICROSECONDS),
    "queue": (LEGACY[2], MICROSECONDS),
}
_NAME = re.compile(r"[\w ]+")
"""Names that programs can tell from the unit behind them."""
_READINGS = {"queue_time": "QueueTime", "worker_thread_time": "WorkerThreadTime"}


class EventMetrics(Metrics):
    """Everything a runner counts, told as it happens."""

    def __init__(
        self,
        mode: Mode,
        *,
        hostname: str | None = None,
        config: MetricsConfig = DEFAULT,
        auto_detect: bool = True,
        write: Write = write_to_logger,
    ) -> None:
        """Start at zero; in the mode `prometheus` nothing is written."""
        self._open = False
        super().__init__(hostname=hostname, config=config, auto_detect=auto_detect)
        self.mode = mode
        self._odd = {spec.name: Series(spec) for spec in _list_odd(config)}
        self._write = write
        self._open = True

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 - any attribute
        """Set an attribute; the two that are readings are told."""
        super().__setattr__(name, value)
        if name in _READINGS and self._open:
            self.tell(_READINGS[name], ("Host", self.hostname), round(value * MILLISECONDS, 3))

    def tally(self, model: str, version: str | None) -> Tally:
        """Return the tally of a model; see `Metrics.tally`."""
        key = model, version
        if key not in self._tallies:
            self._tallies[key] = EventTally(model, version, self)
        return self._tallies[key]

    def count_response(self, status: int) -> None:
        """Count an HTTP response; see `Metrics.count_response`."""
        super().count_response(status)
        self.tell(f"Requests{status // 100}XX", ("Host", self.hostname), 1)

    def set_load_time(self, worker: str, seconds: float) -> None:
        """Note how long a worker took; see `Metrics.set_load_time`."""
        super().set_load_time(worker, seconds)
        self.tell("WorkerLoadTime", (worker, "Host", self.hostname), round(seconds * MILLISECONDS))

    def note_prediction(self, model: str, seconds: float, jobs: Sequence[Job]) -> None:
        """Note how long a batch took; see `Metrics.note_prediction`."""
        super().note_prediction(model, seconds, jobs)
        spec = self.config.backend.get(PREDICTION_TIME)
        if spec is not None and self.mode != "prometheus":
            values = model, "Model", self.hostname
            ids = ",".join(read_request_id(job.packed) for job in jobs)
            self._log(MODEL_METRICS, spec, values, round(seconds * MILLISECONDS, 2), ids)

    def record(self, sample: Mapping[str, Any]) -> None:
        """Take one measurement of a handler; see `Metrics.record`."""
        if self.mode == "prometheus":
            super().record(sample)
            return
        name = str(sample["name"])
        spec = self.config.backend.get(name)
        labels = self._complete(sample["dimensions"])
        if spec is None:
            if not self._auto_detect:
                return
            if _NAME.fullmatch(name) is None:
                self._refuse(name, "use letters, digits and underscores")
                return
            spec = MetricSpec(
                name=name,
                kind="gauge",
                unit=str(sample["unit"]),
                dimensions=tuple(name for name, _ in labels),
            )
        values = [text for _, text in labels]
        self._log(MODEL_METRICS, spec, values, float(sample["value"]), sample["requestId"])

    def log_machine(self) -> None:
        """Log what the collectors read, now; for a timer."""
        for collect in self._collectors:
            for family in collect():
                for _, labels, value in family.samples:
                    values = [text for _, text in labels]
                    if family.name.startswith(OWN_PREFIX):
                        self._log(TS_METRICS, _declare(family, labels), values, value)
                    else:
                        self.tell(family.name, values, value)

    def tell(self, name: str, values: Sequence[str], amount: float) -> None:
        """Take one event of the server's metric `name`: an increment or a reading."""
        spec = self.config.frontend.get(name)
        if spec is None or len(spec.dimensions) != len(values):
            return
        if self.mode == "prometheus":
            if name in self._odd:
                self._odd[name].add(values, amount)
        elif self.mode == "log" or name not in LEGACY:
            self._log(TS_METRICS, spec, values, amount)

    def collect(self) -> Iterator[Family]:
        """Yield what is published in this mode."""
        if self.mode == "log":
            return
        for family in super().collect():
            if self.mode == "prometheus":
                odd = self._odd.get(family.name)
                yield family if odd is None else odd.family()
            elif family.name in LEGACY:
                yield family

    def _log(
        self,
        log: str,
        spec: MetricSpec,
        values: Sequence[str],
        amount: float,
        request_ids: str | None = None,
    ) -> None:
        """Write TorchServe's line; the last label is the host's name."""
        pairs = zip(spec.dimensions[:-1], values[:-1], strict=False)
        labels = ",".join(f"{name}:{text}" for name, text in pairs)
        about = f",requestID:{request_ids or 'null'}" if log == MODEL_METRICS else ""
        line = (
            f"{spec.name}.{spec.unit}:{java_number(amount)}|#{labels}"
            f"|#hostname:{values[-1]}{about},timestamp:{int(time.time())}"
        )
        self._write(log, " ".join(line.split()) if "\n" in line else line)
