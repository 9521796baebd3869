"""Which metrics there are: TorchServe's `metrics.yaml`, and what it has as long as nobody says so.

    dimensions: [ModelName, Level]          # names to point at, if you like; nothing reads the list
    ts_metrics:                             # of the server
      counter:
        - {name: Requests2XX, unit: Count, dimensions: [Level, Hostname]}
    model_metrics:                          # of handlers; Hostname is added to their dimensions
      histogram:
        - {name: HandlerTime, unit: ms, dimensions: [ModelName, Level]}

Values get the names of the dimensions by their position, and the unit and the type are the file's,
whatever a handler says: so it is in TorchServe.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from hatch_mar.errors import HatchMarError, Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Kind = Literal["counter", "gauge", "histogram"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HOSTNAME = "Hostname"
"""The label that every metric of a handler ends with."""
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_LABEL = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*")
_SECTIONS = ("ts_metrics", "model_metrics")
_HOST = ("Level", "Hostname")
_MODEL = ("model_name", "model_version", "hostname")
_GPU = ("Level", "DeviceId", "Hostname")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric as it is published."""

    name: str
    kind: Kind
    unit: str
    dimensions: tuple[str, ...]
    """Names of its labels, in order; those of handlers' metrics end with `Hostname`."""

    @property
    def help(self) -> str:
        """TorchServe's text for it."""
        return f"Torchserve prometheus {self.kind} metric with unit: {self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """Every metric that is declared, by its name."""

    frontend: Mapping[str, MetricSpec] = field(default_factory=dict)
    """What the server publishes; one that is missing here is not published."""
    backend: Mapping[str, MetricSpec] = field(default_factory=dict)
    """What handlers publish."""


def _specs(kind: Kind, unit: str, dimensions: tuple[str, ...], *names: str) -> Iterator[MetricSpec]:
    for name in names:
        yield MetricSpec(name=name, kind=kind, unit=unit, dimensions=dimensions)


def _by_name(*groups: Iterator[MetricSpec]) -> dict[str, MetricSpec]:
    return {spec.name: spec for group in groups for spec in group}


DEFAULT = MetricsConfig(
    frontend=_by_name(
        _specs("counter", "Count", _HOST, "Requests2XX", "Requests4XX", "Requests5XX"),
        _specs("counter", "Count", _MODEL, "ts_inference_requests_total"),
        _specs(
            *("counter", "Microseconds", _MODEL),
            *("ts_inference_latency_microseconds", "ts_queue_latency_microseconds"),
        ),
        _specs("gauge", "Milliseconds", _HOST, "QueueTime", "WorkerThreadTime"),
        _specs("gauge", "Milliseconds", ("WorkerName", *_HOST), "WorkerLoadTime"),
        _specs("gauge", "Percent", _HOST, "CPUUtilization"),
        _specs("gauge", "Megabytes", _HOST, "MemoryUsed", "MemoryAvailable"),
        _specs("gauge", "Percent", _HOST, "MemoryUtilization"),
        _specs("gauge", "Gigabytes", _HOST, "DiskUsage"),
        _specs("gauge", "Percent", _HOST, "DiskUtilization"),
        _specs("gauge", "Gigabytes", _HOST, "DiskAvailable"),
        _specs("gauge", "Percent", _GPU, "GPUMemoryUtilization"),
        _specs("gauge", "Megabytes", _GPU, "GPUMemoryUsed"),
        _specs("gauge", "Percent", _GPU, "GPUUtilization"),
    ),
    backend=_by_name(
        _specs("gauge", "ms", ("ModelName", *_HOST), "HandlerTime", "PredictionTime"),
    ),
)
"""What holds without a file."""


def list_declared(config: MetricsConfig) -> list[dict[str, Any]]:
    """Return what handlers' own code is told of `config`: Hostname is none of its business."""
    return [
        {
            "name": spec.name,
            "unit": spec.unit,
            "type": spec.kind,
            "dimensions": [name for name in spec.dimensions if name != HOSTNAME],
        }
        for spec in config.backend.values()
    ]


def is_metric_name(text: str) -> bool:
    """Tell whether Prometheus would take `text` for a metric's name."""
    return _NAME.fullmatch(text) is not None


def is_label_name(text: str) -> bool:
    """Tell whether Prometheus would take `text` for a label's name."""
    return _LABEL.fullmatch(text) is not None


def read_metrics_config(path: Path) -> MetricsConfig:
    """Read a `metrics.yaml`.

    Raises:
        HatchMarError: it cannot be read, or is no YAML.
        ProblemsError: everything in it that is wrong.
    """
    import yaml  # noqa: PLC0415 - most runners have no such file

    try:
        raw = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise HatchMarError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise HatchMarError(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
    reading = _Reading(str(path))
    config = reading.read(raw)
    if reading.problems:
        raise ProblemsError(reading.problems)
    return config


class _Reading:
    """One file being read, and what is wrong with it."""

    def __init__(self, file: str) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._names: dict[str, str] = {}

    def read(self, raw: object) -> MetricsConfig:
        if not isinstance(raw, dict):
            self._note("", "has no `ts_metrics` and no `model_metrics`; see TorchServe's own file")
            return DEFAULT
        for key in raw:
            if key not in ("dimensions", *_SECTIONS):
                self._note(str(key), f"is not known; known are dimensions, {', '.join(_SECTIONS)}")
        frontend, backend = (dict(self._section(raw, section)) for section in _SECTIONS)
        return MetricsConfig(frontend=frontend, backend=backend)

    def _section(self, raw: dict[Any, Any], section: str) -> Iterator[tuple[str, MetricSpec]]:
        value = raw.get(section)
        if value is not None and not isinstance(value, dict):
            self._note(section, f"must have {', '.join(KINDS)}")
            return
        for kind, entries in (value or {}).items():
            key = f"{section}.{kind}"
            if kind not in KINDS:
                self._note(key, f"is no type of metric; choose {', '.join(KINDS)}")
            elif entries is not None and not isinstance(entries, list):
                self._note(key, "must be a list of metrics with name, unit and dimensions")
            else:
                for number, entry in enumerate(entries or ()):
                    spec = self._entry(f"{key}[{number}]", cast("Kind", kind), entry)
                    if spec is not None:
                        yield spec.name, _complete(section, spec)

    def _entry(self, key: str, kind: Kind, entry: object) -> MetricSpec | None:
        if not isinstance(entry, dict):
            self._note(key, "must have name, unit and dimensions")
            return None
        count = len(self.problems)
        name, unit = self._text(entry, key, "name"), self._text(entry, key, "unit")
        dimensions = self._dimensions(f"{key}.dimensions", entry.get("dimensions"))
        for other in entry:
            if other not in ("name", "unit", "dimensions"):
                self._note(f"{key}.{other}", "is not known; known are name, unit, dimensions")
        if name and not is_metric_name(name):
            self._note(f"{key}.name", f"{name!r}: use letters, digits and underscores")
        elif name in self._names:
            self._note(f"{key}.name", f"{name!r} is {self._names[name]} already; remove one")
        self._names[name] = key
        if len(self.problems) > count:
            return None
        return MetricSpec(name=name, kind=kind, unit=unit, dimensions=dimensions)

    def _text(self, entry: dict[Any, Any], key: str, field_: str) -> str:
        value = entry.get(field_)
        if isinstance(value, str) and value:
            return value
        problem = "is missing" if value is None else f"{value!r} is no text; put it in quotes"
        self._note(f"{key}.{field_}", problem)
        return ""

    def _dimensions(self, key: str, value: object) -> tuple[str, ...]:
        if value is None:
            self._note(key, "is missing; [] for none")
            return ()
        if not isinstance(value, list):
            self._note(key, f"{value!r} is no list")
            return ()
        wrong = [one for one in value if not (isinstance(one, str) and is_label_name(one))]
        for one in wrong:
            self._note(key, f"{one!r}: use letters, digits and underscores")
        if not wrong and len(set(value)) < len(value):
            self._note(key, f"{value!r} names one twice")
        return tuple(map(str, value))

    def _note(self, key: str, message: str) -> None:
        self.problems.append(Problem(self._file, key, message))


def _complete(section: str, spec: MetricSpec) -> MetricSpec:
    """Add the label that every metric of a handler has."""
    if section == "ts_metrics" or HOSTNAME in spec.dimensions:
        return spec
    return MetricSpec(
        name=spec.name,
        kind=spec.kind,
        unit=spec.unit,
        dimensions=(*spec.dimensions, HOSTNAME),
    )
