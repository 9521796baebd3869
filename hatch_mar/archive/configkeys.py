"""The keys of model-config.yaml: their types, their limits, and what TorchServe makes of the rest.

One table serves both readers: the tolerant one, which does what TorchServe does and warns, and the
strict one, which builds use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kind = Literal["integer", "boolean", "string", "integers", "mapping"]

JAVA_INTEGER = range(-(2**31), 2**31)
"""What TorchServe's YAML reader gives as an integer; greater ones have another type to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of TorchServe's frontend, or one of ours beside them."""

    name: str
    kind: Kind
    least: int | None = None
    """The smallest value that makes sense."""
    clamped: bool = False
    """Whether TorchServe raises smaller values to `least`; it ignores them otherwise."""
    choices: tuple[str, ...] = ()
    """The values that make sense, whatever their case."""

    @property
    def attribute(self) -> str:
        """The attribute of `ModelConfig`."""
        return snake(self.name)

    def find_flaw(self, value: object) -> str | None:
        """Return what is wrong with `value`, or None."""
        found = find_type_flaw(self.kind, value)
        if found is not None:
            return found
        if self.choices and str(value).lower() not in self.choices:
            return f"must be {_either(self.choices)}, not {value!r}"
        if value == []:
            return "must not be empty"
        if self.least is not None and (smallest := _smallest(value)) < self.least:
            return f"must be at least {self.least}, not {smallest}"
        return None


def snake(name: str) -> str:
    """Return `batch_size` for `batchSize`, `sequence_max_idle_msec` for `sequenceMaxIdleMSec`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def find_type_flaw(kind: Kind, value: object) -> str | None:
    """Return why `value` is not of `kind` to TorchServe, or None if it is."""
    article = "an" if kind == "integer" else "a"
    wanted = "a list of integers" if kind == "integers" else f"{article} {kind}"
    if _TYPES[kind](value):
        return None
    if value is None:
        return f"must be {wanted}, but is empty"
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"-?\d+|true|false", value):
        hint = f"; write {value} without quotes"
    return f"must be {wanted}, not {value!r}{hint}"


def _is_integer(value: object) -> bool:
    return type(value) is int and value in JAVA_INTEGER


def _is_integers(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_integer, value))


_TYPES: Mapping[Kind, Callable[[object], bool]] = {
    "integer": _is_integer,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "integers": _is_integers,
    "mapping": lambda value: isinstance(value, dict),
}


def _smallest(value: Any) -> int:  # noqa: ANN401 - an integer or a list of them by now
    return int(min(value) if isinstance(value, list) else value)


def _either(choices: tuple[str, ...]) -> str:
    quoted = [repr(choice) for choice in choices]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


FRONTEND_KEYS = (
    Key(name="minWorkers", kind="integer", least=1, clamped=True),
    Key(name="maxWorkers", kind="integer", least=1),
    Key(name="batchSize", kind="integer", least=1, clamped=True),
    Key(name="maxBatchDelay", kind="integer", least=1),
    Key(name="responseTimeout", kind="integer", least=1),
    Key(name="startupTimeout", kind="integer", least=1),
    Key(name="deviceType", kind="string", choices=("cpu", "gpu")),
    Key(name="deviceIds", kind="integers", least=0),
    Key(name="parallelType", kind="string", choices=("pp", "tp", "pptp", "custom", "")),
    Key(name="parallelLevel", kind="integer", least=1),
    Key(name="torchrun", kind="mapping"),
    Key(name="maxRetryTimeoutInSec", kind="integer", least=0, clamped=True),
    Key(name="clientTimeoutInMills", kind="integer", least=0),
    Key(name="jobQueueSize", kind="integer", least=1),
    Key(name="useJobTicket", kind="boolean"),
    Key(name="sequenceBatching", kind="boolean"),
    Key(name="sequenceMaxIdleMSec", kind="integer", least=0),
    Key(name="sequenceTimeoutMSec", kind="integer", least=0),
    Key(name="maxSequenceJobQueueSize", kind="integer", least=1),
    Key(name="maxNumSequence", kind="integer", least=1),
    Key(name="continuousBatching", kind="boolean"),
    Key(name="asyncCommunication", kind="boolean"),
    Key(name="useVenv", kind="boolean"),
    Key(name="isolate", kind="boolean"),
)
"""The keys that decide how a model is served. `isolate` is ours; TorchServe ignores it."""

SYSTEM_KEYS = (
    Key(name="maxGPUMemory", kind="integer", least=1),
    Key(name="decodeImages", kind="string", choices=("auto", "never", "always")),
)
"""Keys of the section `system`, beside `extraFiles`, which is a string or a list of them."""

SECTIONS = ("handler", "pt2", "system", "pippy", "deepspeed", "dali", "micro_batching", "rpc")
"""Sections that TorchServe's handlers or its documents know; what is in them is theirs."""

TORCHRUN_KEYS: Mapping[str, Kind] = {
    "nnodes": "integer",
    "nproc-per-node": "integer",
    "rdzv-backend": "string",
    "rdzv-endpoint": "string",
    "rdzv-conf": "string",
    "monitor-interval": "integer",
    "node-rank": "integer",
    "OMP_NUMBER_THREADS": "integer",
}

COMPILE_BACKENDS = (
    "eager",
    "aot_eager",
    "inductor",
    "nvfuser",
    "aot_nvfuser",
    "aot_cudagraphs",
    "ofi",
    "fx2trt",
    "onnxrt",
    "ipex",
    "torchxla_trace_once",
    "openvino",
    "tensorrt",
    "hpu_backend",
)
"""Backends of torch.compile that TorchServe lets through; with another it does not compile."""
