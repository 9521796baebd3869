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

Kind = Literal["integer", "boolean", "string", "integers", "sizes", "mapping"]

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
    unless_set: str = ""
    """What holds where nothing is said, for a person."""
    meaning: str
    """One line of the reference."""
    shown_only: bool = False
    """Whether our runner reads and shows the key, but does as if it were not set."""

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
    wanted = _IN_WORDS.get(kind, f"a {kind}")
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
    "sizes": lambda value: value is True or _is_integers(value),
    "mapping": lambda value: isinstance(value, dict),
}


_IN_WORDS: Mapping[Kind, str] = {
    "integer": "an integer",
    "integers": "a list of integers",
    "sizes": "true, or a list of integers",
}


def _smallest(value: Any) -> int:  # noqa: ANN401 - an integer or a list of them by now
    return int(min(value) if isinstance(value, list) else value)


def _either(choices: tuple[str, ...]) -> str:
    quoted = [repr(choice) for choice in choices]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


FRONTEND_KEYS = (
    Key(
        name="minWorkers",
        kind="integer",
        least=1,
        clamped=True,
        unless_set="one per GPU, or one",
        meaning="Worker processes to start with, and the fewest. Nothing without `maxWorkers`.",
    ),
    Key(
        name="maxWorkers",
        kind="integer",
        least=1,
        unless_set="as many as `minWorkers`",
        meaning="The most worker processes: their number follows the load. Nothing without "
        "`minWorkers`.",
    ),
    Key(
        name="batchSize",
        kind="integer",
        least=1,
        clamped=True,
        unless_set="1",
        meaning="The most requests that a worker gets at once.",
    ),
    Key(
        name="maxBatchDelay",
        kind="integer",
        least=1,
        unless_set="no delay; TorchServe waits 100",
        meaning="Milliseconds that an idle worker waits for a batch to fill.",
    ),
    Key(
        name="responseTimeout",
        kind="integer",
        least=1,
        unless_set="120",
        meaning="Seconds; a worker that takes longer for a batch is replaced.",
    ),
    Key(
        name="startupTimeout",
        kind="integer",
        least=1,
        unless_set="120",
        meaning="Seconds that loading may take.",
    ),
    Key(
        name="deviceType",
        kind="string",
        choices=("cpu", "gpu"),
        unless_set="GPUs if there are any",
        meaning="Where workers run.",
    ),
    Key(
        name="deviceIds",
        kind="integers",
        least=0,
        unless_set="all",
        meaning="Physical numbers of the GPUs to use.",
    ),
    Key(
        name="parallelType",
        kind="string",
        choices=("pp", "tp", "pptp", "custom", ""),
        meaning="The model is divided: among the processes of a worker, or, with `custom`, by "
        "itself among the GPUs.",
    ),
    Key(
        name="parallelLevel",
        kind="integer",
        least=1,
        meaning="Processes per worker, each with a GPU if there are any. Nothing without "
        "`parallelType`, or with `torchrun`.",
    ),
    Key(
        name="torchrun",
        kind="mapping",
        meaning="How torch's launcher starts the processes of a worker; see below.",
    ),
    Key(
        name="maxRetryTimeoutInSec",
        kind="integer",
        least=0,
        clamped=True,
        unless_set="300",
        meaning="Seconds for which a dying worker is started again and again.",
    ),
    Key(
        name="clientTimeoutInMills",
        kind="integer",
        least=0,
        unless_set="0: as long as it takes",
        meaning="Milliseconds; a request that waited longer is answered 408 and not run.",
    ),
    Key(
        name="jobQueueSize",
        kind="integer",
        least=1,
        unless_set="100",
        meaning="Requests that may wait; more are answered 503.",
    ),
    Key(
        name="maxQueueDelay",
        kind="integer",
        least=1,
        unless_set="any time",
        meaning="Milliseconds that a request may wait to be begun; one that would wait longer, by "
        "what its predecessors took, is answered 503 at once. TorchServe does not know this key.",
    ),
    Key(
        name="useJobTicket",
        kind="boolean",
        unless_set="false",
        meaning="Whether a request is taken only by an idle worker, and else answered 503.",
    ),
    Key(
        name="sequenceBatching",
        kind="boolean",
        unless_set="false",
        meaning="Whether the requests of a sequence go to one worker, in order. "
        "Needs `sequenceMaxIdleMSec`.",
        shown_only=True,
    ),
    Key(
        name="sequenceMaxIdleMSec",
        kind="integer",
        least=0,
        unless_set="0",
        meaning="Milliseconds after which an idle sequence ends.",
        shown_only=True,
    ),
    Key(
        name="sequenceTimeoutMSec",
        kind="integer",
        least=0,
        unless_set="0",
        meaning="Milliseconds after which a sequence times out.",
        shown_only=True,
    ),
    Key(
        name="maxSequenceJobQueueSize",
        kind="integer",
        least=1,
        unless_set="1",
        meaning="Requests of one sequence that may wait.",
        shown_only=True,
    ),
    Key(
        name="maxNumSequence",
        kind="integer",
        least=1,
        unless_set="1",
        meaning="Sequences at a time.",
        shown_only=True,
    ),
    Key(
        name="continuousBatching",
        kind="boolean",
        unless_set="false",
        meaning="Whether requests may join a batch that is running.",
        shown_only=True,
    ),
    Key(
        name="asyncCommunication",
        kind="boolean",
        unless_set="false",
        meaning="Whether the handler's `handle` is a coroutine that answers when it likes.",
        shown_only=True,
    ),
    Key(
        name="useVenv",
        kind="boolean",
        unless_set="false",
        meaning="Whether TorchServe installs requirements into a virtual environment. Here they "
        "always are, where they are installed at all.",
    ),
    Key(
        name="scaleUpWaitMSec",
        kind="integer",
        least=1,
        unless_set="100",
        meaning="Milliseconds that requests may wait for a worker before one more is wanted, up to "
        "`maxWorkers`. TorchServe does not know this key.",
    ),
    Key(
        name="scaleUpAfterMSec",
        kind="integer",
        least=1,
        unless_set="2000, and as long as loading takes",
        meaning="Milliseconds that they have to wait so long. TorchServe does not know this key.",
    ),
    Key(
        name="scaleDownAfterMSec",
        kind="integer",
        least=1,
        unless_set="60000",
        meaning="Milliseconds that a worker has to be more than is needed before it leaves, down "
        "to `minWorkers`. TorchServe does not know this key.",
    ),
    Key(
        name="scaleFromZero",
        kind="boolean",
        unless_set="false",
        meaning="Whether a model that was scaled to `min_worker=0` may lose its last worker when "
        "nobody asks, and gets one, for which requests wait, when somebody does; they are answered "
        "503 otherwise. TorchServe does not know this key.",
    ),
    Key(
        name="isolate",
        kind="boolean",
        unless_set="where it is safe",
        meaning="Whether a failed batch is run again in halves, so that one bad request fails "
        "alone. Safe: handlers of `handler_factory`, and subclasses of BaseHandler that keep its "
        "`handle`. TorchServe does not know this key.",
    ),
)
"""The keys that decide how a model is served.

`maxQueueDelay`, `isolate` and those that begin with `scale` are ours; TorchServe ignores them."""

SYSTEM_KEYS = (
    Key(
        name="maxGPUMemory",
        kind="integer",
        least=1,
        meaning="MB of its GPU's memory that one worker may take.",
    ),
    Key(
        name="decodeImages",
        kind="string",
        choices=("auto", "never", "always"),
        unless_set="auto",
        meaning="When bytes reach `preprocess_function` as a PIL image: if the content type is "
        "`image/...`, never, or whenever they are an image.",
    ),
)
"""Keys of the section `system`, beside `extraFiles`, which is a string or a list of them."""

SECTIONS = (
    "handler",
    "pt2",
    "system",
    "cuda",
    "pippy",
    "deepspeed",
    "dali",
    "micro_batching",
    "rpc",
)
"""Sections that TorchServe's handlers or its documents know; what is in them is theirs.

`system` belongs to handlers of `handler_factory`, `cuda` to our runner."""

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
