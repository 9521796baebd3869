"""model-config.yaml as TorchServe reads it: what it shrugs at is a warning here.

A build is stricter: see `check_model_config`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from hatch_mar.archive.configcheck import check_model_config
from hatch_mar.archive.configkeys import FRONTEND_KEYS, SYSTEM_KEYS
from hatch_mar.archive.cudakeys import CUDA_KEYS, SECTION, find_cuda_flaws
from hatch_mar.archive.names import find_flaw
from hatch_mar.errors import ArchiveError, Problem

__all__ = [
    "ModelConfig",
    "check_model_config",
    "parse_model_config",
    "parse_yaml",
    "read_model_config",
]

LARGEST_VALUE = 100_000
"""Scalars and containers in one file. A few lines of aliases can stand for billions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """How a model wants to be served. None means that its author did not say."""

    min_workers: int | None = None
    """None unless `max_workers` is set too, and is not smaller: TorchServe's rule."""
    max_workers: int | None = None
    scale_up_wait_msec: int = 100
    """How long requests may wait for a worker before one more is wanted."""
    scale_up_after_msec: int = 2000
    """For how long they have to."""
    scale_down_after_msec: int = 60_000
    """For how long a worker has to be more than is needed before it leaves."""
    scale_from_zero: bool = False
    """Whether a request for a model that was scaled to nothing starts a worker, and waits."""
    batch_size: int = 1
    max_batch_delay: int | None = None
    """Milliseconds; TorchServe waits 100 where nothing is said."""
    response_timeout: int = 120
    """Seconds."""
    startup_timeout: int = 120
    """Seconds."""
    device_type: str | None = None
    """`cpu` or `gpu`."""
    device_ids: tuple[int, ...] | None = None
    parallel_type: str = ""
    """`pp`, `tp`, `pptp`, `custom`, or empty."""
    parallel_level: int = 0
    """GPUs per worker; 0 unless `parallel_type` is set."""
    torchrun: Mapping[str, Any] | None = None
    max_retry_timeout_in_sec: int = 300
    client_timeout_in_mills: int = 0
    """0: a client waits as long as it takes."""
    job_queue_size: int | None = None
    max_queue_delay: int | None = None
    """Milliseconds that a request may be predicted to wait; None: any time."""
    use_job_ticket: bool = False
    sequence_batching: bool = False
    sequence_max_idle_msec: int = 0
    sequence_timeout_msec: int = 0
    max_sequence_job_queue_size: int = 1
    max_num_sequence: int = 1
    continuous_batching: bool = False
    async_communication: bool = False
    use_venv: bool = False
    isolate: bool | None = None
    """Whether a failed batch is run again in halves; None: where that is safe."""
    system_extra_files: tuple[str, ...] = ()
    """Tarballs in the model directory whose files belong beside the handler."""
    system_max_gpu_memory: int | None = None
    """MB of its device that a worker may take."""
    system_decode_images: str = "auto"
    """`auto`, `never`, `always`."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """The whole file, for the handler."""
    warnings: tuple[str, ...] = ()
    """What was ignored or changed, and why."""


def read_model_config(raw: Mapping[str, Any] | None) -> ModelConfig:
    """Take what TorchServe would take of `raw`, the parsed file, and warn about the rest."""
    raw = {} if raw is None else raw
    warnings: list[str] = []
    values = dict(_frontend_values(raw, warnings))
    _pair_workers(values, warnings)
    if not values.get("parallel_type"):
        values.pop("parallel_level", None)
    values.update(_system_values(raw.get("system"), warnings))
    if SECTION in raw:
        warnings += _cuda_warnings(raw[SECTION])
    return ModelConfig(**values, raw=raw, warnings=tuple(warnings))


def _frontend_values(raw: Mapping[str, Any], warnings: list[str]) -> Iterator[tuple[str, Any]]:
    for key in (key for key in FRONTEND_KEYS if key.name in raw):
        value = raw[key.name]
        flaw = key.find_flaw(value)
        if flaw is None:
            yield key.attribute, _tidy(value)
        elif key.clamped and type(value) is int:
            warnings.append(f"{key.name}: {flaw}; taken as {key.least}")
            yield key.attribute, key.least
        else:
            warnings.append(f"{key.name}: {flaw}; ignored")


def _tidy(value: Any) -> Any:  # noqa: ANN401 - of the key's type
    if isinstance(value, list):
        return tuple(value)
    return value.lower() if isinstance(value, str) else value  # one of a few words


def _pair_workers(values: dict[str, Any], warnings: list[str]) -> None:
    least, most = values.get("min_workers"), values.get("max_workers")
    if (least is None) != (most is None):
        given, missing = ("maxWorkers", "minWorkers")[:: -1 if most is None else 1]
        warnings.append(f"{given}: ignored, because {missing} is not set")
    elif least is not None and most < least:
        warnings.append(f"maxWorkers: {most} is less than minWorkers, {least}; both ignored")
    else:
        return
    values.pop("min_workers", None)
    values.pop("max_workers", None)


def _system_values(raw: object, warnings: list[str]) -> Iterator[tuple[str, Any]]:
    if raw is None:
        return
    if not isinstance(raw, Mapping):
        warnings.append("system: must be a mapping; ignored")
        return
    extra = raw.get("extraFiles")
    names = [extra] if isinstance(extra, str) else extra
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        flaws = {name: find_flaw(name) for name in names}
        warnings += [
            f"system.extraFiles: {name!r} {flaw}; ignored" for name, flaw in flaws.items() if flaw
        ]
        yield "system_extra_files", tuple(name for name, flaw in flaws.items() if not flaw)
    elif names is not None:
        warnings.append(f"system.extraFiles: must be a file name or a list, not {extra!r}; ignored")
    for key in (key for key in SYSTEM_KEYS if key.name in raw):
        flaw = key.find_flaw(raw[key.name])
        if flaw is None:
            yield f"system_{_SYSTEM_ATTRIBUTES[key.name]}", _tidy(raw[key.name])
        else:
            warnings.append(f"system.{key.name}: {flaw}; ignored")


def _cuda_warnings(section: object) -> Iterator[str]:
    """Say what of `section` a worker will pass over; see `hatch_mar.model.cuda.section`."""
    for key, flaw in find_cuda_flaws(section):
        yield f"{SECTION}.{key}: {flaw}; ignored" if key else f"{SECTION}: {flaw}; ignored"
    known = {key.name for key in CUDA_KEYS}
    unknown = (key for key in section if key not in known) if isinstance(section, Mapping) else ()
    yield from (f"{SECTION}.{key}: unknown key; ignored" for key in unknown)


_SYSTEM_ATTRIBUTES = {"maxGPUMemory": "max_gpu_memory", "decodeImages": "decode_images"}


def parse_yaml(data: bytes, where: str) -> Any:  # noqa: ANN401 - whatever the file says
    """Parse YAML; whatever is wrong with it is an `ArchiveError` that starts with `where`."""
    value, problems = _parse(data, where, strict=False)
    for problem in problems:
        raise ArchiveError(str(problem))
    return value


def parse_model_config(data: bytes, file: str) -> tuple[dict[str, Any], list[Problem]]:
    """Parse a project's model-config.yaml, and say what is wrong with it as YAML.

    `check_model_config` says what is wrong with what it means.
    """
    value, problems = _parse(data, file, strict=True)
    if isinstance(value, dict) or problems:
        return value if isinstance(value, dict) else {}, problems
    message = (
        "is empty; remove it, or say something in it" if value is None else "must be a mapping"
    )
    return {}, [Problem(file, "", message)]


def _parse(data: bytes, file: str, *, strict: bool) -> tuple[Any, list[Problem]]:
    import yaml  # noqa: PLC0415 - only those who have such a file pay for it

    try:
        loader = yaml.SafeLoader(data)
        node = loader.get_single_node()
        if _count(node, {}) > LARGEST_VALUE:
            return None, [Problem(file, "", f"holds more than {LARGEST_VALUE} values")]
        repeated = list(_repeated_keys(node, file)) if strict else []
        value = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        return None, [Problem(file, "", f"{line}{error.problem or error.context}")]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return None, [Problem(file, "", f"not YAML: {' '.join(str(error).split())}")]
    except (AttributeError, LookupError, TypeError):  # how PyYAML says that of `!!int ''`
        message = "not YAML: a value is not what its tag says (`!!int`, `!!bool`, `!!timestamp`)"
        return None, [Problem(file, "", message)]
    return value, repeated


def _repeated_keys(node: Any, file: str, path: str = "") -> Iterator[Problem]:  # noqa: ANN401
    """Find keys that are given twice: every YAML reader silently takes the last one."""
    import yaml  # noqa: PLC0415 - see above

    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name = f"{path}.{key.value}" if path else str(key.value)
        line = key.start_mark.line + 1
        if name in lines:
            yield Problem(file, name, f"is given twice, in lines {lines[name]} and {line}")
        lines[name] = line
        yield from _repeated_keys(value, file, name)


def _count(node: Any, known: dict[int, float]) -> float:  # noqa: ANN401 - yaml's own
    """Count what `node` stands for, an alias as often as it occurs, or `inf` if it holds itself.

    Nothing of it has been constructed yet: merging (`<<`) copies what it takes.
    """
    if node is None or isinstance(node.value, str):
        return 1
    if id(node) not in known:
        known[id(node)] = inf  # until all that is in it has been counted
        pairs = [each if isinstance(each, tuple) else (each,) for each in node.value]
        known[id(node)] = 1 + sum(_count(each, known) for pair in pairs for each in pair)
    return known[id(node)]
