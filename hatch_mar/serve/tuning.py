"""What batches cost, measured before anybody asks: `tuning.json`, which `hatch-mar tune` writes.

    {"schema": 1, "tunings": [{"model": ..., "device": {...}, "fixed": ..., "perItem": ...,
                               "batches": [{"size": ..., "count": ..., "seconds": ...}, ...]}]}

One entry per model and device, times in seconds. It lies beside an archive (`NAME.mar.tuning.json`)
or in it (an extra file called `tuning.json`). A runner takes the entry that was measured with this
model on such a device for what it expects of batches until it has seen some; nothing depends on it,
so a file that is no such thing is passed over with a warning.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatch_mar.serve.batching.costs import Cost
from hatch_mar.serve.launch import uses_gpu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.serve.deployment import Deployment
    from hatch_mar.serve.devices.discovery import Device
    from hatch_mar.serve.devices.placement import Placement
    from hatch_mar.serve.settings import ServiceSettings

TUNING_NAME = "tuning.json"
SCHEMA = 1
SECTIONS = ("cuda", "pt2", "handler", "system")
"""The sections of model-config.yaml that may change what a batch costs."""
_LIBRARIES = ("torch", "onnxruntime", "onnxruntime-gpu")

logger = logging.getLogger("hatch_mar.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Batches of one size."""

    size: int
    count: int
    """How many there were."""
    seconds: float
    """What the median one took in its worker."""

    def as_dict(self) -> dict[str, Any]:
        """Return the form in which the file holds it."""
        return {"size": self.size, "count": self.count, "seconds": self.seconds}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """One model on one kind of device."""

    model: str
    """See `digest_model`."""
    device: Mapping[str, str]
    """See `describe_device`."""
    cost: Cost
    batches: tuple[Sweep, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the form in which the file holds it."""
        return {
            "model": self.model,
            "device": dict(self.device),
            "fixed": self.cost.fixed,
            "perItem": self.cost.per_item,
            "batches": [sweep.as_dict() for sweep in self.batches],
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Tuning:
        """Read back what `as_dict` wrote.

        Raises:
            ValueError: a cost that nothing has.
        """
        fixed, per_item = float(raw["fixed"]), float(raw["perItem"])
        if not (math.isfinite(fixed + per_item) and min(fixed, per_item) >= 0):
            raise ValueError(f"a batch costs {fixed} and {per_item} for each item")
        return cls(
            model=str(raw["model"]),
            device={str(key): str(fact) for key, fact in raw["device"].items()},
            cost=Cost(fixed=fixed, per_item=per_item),
            batches=tuple(Sweep(**sweep) for sweep in raw["batches"]),
        )


def place_beside(archive: Path) -> Path:
    """Return where the tunings of an archive, a file or a directory, are."""
    return archive.with_name(f"{archive.name}.{TUNING_NAME}")


def read_tunings(path: Path) -> list[Tuning]:
    """Return the tunings in `path`: none if it is not there, or is something else."""
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s: passed over, it holds no tunings: %s", path, error)
        return []


def _parse(raw: Mapping[str, Any]) -> list[Tuning]:
    if raw["schema"] != SCHEMA:
        raise ValueError(f"schema {raw['schema']!r}; this hatch-mar reads {SCHEMA}")
    return [Tuning.from_dict(entry) for entry in raw["tunings"]]


def add_tuning(path: Path, tuning: Tuning) -> None:
    """Put `tuning` into `path`, in place of what was measured with the same model and device.

    Raises:
        OSError: it cannot be written; it is as it was then.
    """
    others = [
        each
        for each in read_tunings(path)
        if (each.model, each.device) != (tuning.model, tuning.device)
    ]
    value = {"schema": SCHEMA, "tunings": [each.as_dict() for each in (*others, tuning)]}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def find_cost(
    deployment: Deployment, settings: ServiceSettings, placement: Placement
) -> Cost | None:
    """Return what batches of `deployment` were measured to cost on such a device as it will have.

    None where nobody has: the model, the device or a library is another one.
    """
    if not deployment.tunings:
        return None
    device: Device | None = None
    if uses_gpu(deployment, settings, placement):
        device = next(iter(placement.choose(deployment.config.device_ids, deployment.name)), None)
    model, facts = digest_model(deployment), describe_device(device)
    for tuning in deployment.tunings:
        if tuning.model == model and tuning.device == facts:
            logger.info("%s: batches are expected to cost what was tuned", deployment.name)
            return tuning.cost
    logger.info("%s: was tuned as another model, or on another device", deployment.name)
    return None


def describe_device(device: Device | None) -> dict[str, str]:
    """Return what times on a device depend on: its name, and the libraries that compute there.

    Nothing of it needs a CUDA context, so that the door can ask.
    """
    if device is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        facts = {"name": _name_processor(), "cores": str(cores)}
    else:
        facts = {"name": device.name, "memory": str(device.memory)}
    return facts | {name: found for name in _LIBRARIES if (found := _find_version(name))}


def digest_model(deployment: Deployment) -> str:
    """Stand for what a batch of `deployment` costs: its files by name and size, and its config.

    Weights of the same sizes cost the same, whatever their values.
    """
    directory = deployment.directory
    files = [
        (path.relative_to(directory).as_posix(), path.stat().st_size)
        for path in directory.rglob("*")
        if path.is_file() and not _is_beside_the_point(path.relative_to(directory))
    ]
    raw = deployment.config.raw or {}
    config = {key: raw[key] for key in SECTIONS if key in raw}
    facts = [deployment.handler, sorted(files), config]
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def load_tunings(deployment: Deployment, beside: Path) -> Deployment:
    """Return `deployment` with what was measured of it, beside its archive or shipped with it."""
    found = [*read_tunings(place_beside(beside)), *read_tunings(deployment.directory / TUNING_NAME)]
    return replace(deployment, tunings=tuple(found)) if found else deployment


def _is_beside_the_point(path: Path) -> bool:
    return path.parts[0] in {"MAR-INF", TUNING_NAME, "model-config.yaml"} or (
        "__pycache__" in path.parts
    )


def _name_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "cpu")


def _find_version(library: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - few are tuned

    try:
        return version(library)
    except PackageNotFoundError:
        return ""
