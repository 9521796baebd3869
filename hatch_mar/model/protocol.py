"""What passes between a server and a loaded model: no torch in here, so the door may import it.

A `Request` is one HTTP request as it reaches a worker, a `Response` what goes back. `Servable` is a
loaded model as the worker's loop sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hatch_mar.model.stages import Stages

    OnPiece = Callable[[Sequence[tuple[str, "Response"]]], None]
    """Takes intermediate answers, each with the id of its request."""

STREAM_NEXT = "ts_stream_next"
"""The header that says of an answer whether more of it follows: `true`, or `false` at its end."""
HALVED = "hatch_mar_batches_halved"
"""What a worker measures whenever it runs a failed batch again in halves."""


@dataclass(slots=True)
class Part:
    """One input of a request: the whole body, or one field of a form."""

    name: str
    """Key of the handler's row: `body`, `data`, or the form field's name."""
    content_type: str
    """MIME type without parameters; empty when the client sent none."""
    data: bytes | bytearray | memoryview


@dataclass(slots=True)
class Request:
    """One request for a model."""

    id: str
    """The `x-request-id` the client is given: a UUID4."""
    headers: Sequence[tuple[str, str]]
    """Names as the client sent them; a repeated name keeps its last value for the handler."""
    parts: Sequence[Part]
    url_path: str | None = ""
    """What follows the version in the path, without a leading slash; None where the handler is told
    of none (TorchServe's KServe, SageMaker and legacy routes)."""
    explain: bool | None = False
    """None where the handler is not told (TorchServe's SageMaker and legacy routes)."""
    describe: bool = False


@dataclass(slots=True)
class Response:
    """The answer to one request."""

    status: int
    body: bytes | bytearray | memoryview
    """The handler's bytes; where `error` is set, the message for the error body, in UTF-8."""
    phrase: str = ""
    content_type: str | None = None
    """None unless the handler set one: TorchServe sends none either."""
    headers: Sequence[tuple[str, str]] = ()
    error: bool = False
    error_type: str = "InternalServerException"
    """`type` of TorchServe's error body, where `error` is set; workers leave it as it is."""

    @property
    def announces_more(self) -> bool:
        """Whether the handler says, with TorchServe's header, that this is not all."""
        return any(pair == (STREAM_NEXT, "true") for pair in self.headers)


def join_pieces(pieces: Sequence[Response], last: Response) -> Response:
    """Return a streamed answer in one piece, for somebody who does not want a stream.

    Status and headers are the first piece's, as they would be on the wire; an error that ended the
    stream takes the place of it all.
    """
    if not pieces or last.error:
        return last
    first = pieces[0]
    headers = tuple(pair for pair in first.headers if pair[0] != STREAM_NEXT)
    body = b"".join([*(piece.body for piece in pieces), last.body])
    return Response(first.status, body, first.phrase, first.content_type, headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """All a worker needs to load its model. Travels to it as JSON."""

    model_name: str
    model_version: str
    model_dir: str
    """The run directory: the worker's cwd, first on `sys.path`."""
    handler: str
    """As in the manifest, or the operator's override."""
    manifest: Mapping[str, Any] | None = None
    """`context.manifest`; None when the archive has none."""
    config: Mapping[str, Any] | None = None
    """The whole model-config.yaml: `context.model_yaml_config`."""
    batch_size: int = 1
    gpu_id: int | None = None
    """Logical CUDA index inside the worker; None on CPU."""
    max_gpu_memory: int | None = None
    """MB this worker may take of its device."""
    limit_max_image_pixels: bool = True
    decode_input_request: bool = True
    isolate: bool | None = None
    """Re-run a failed batch in halves so that a bad item fails alone; None: where that is safe."""
    envelope: str | None = None
    metrics: Sequence[Mapping[str, Any]] = ()
    """What `metrics.yaml` declares for handlers: name, unit, type, dimensions."""
    install_hooks: bool = True
    """Whether `install_packages` and `unpack_dependencies` of a handler may run."""
    trusted_pickle: Sequence[str] = ()
    examples: Sequence[Mapping[str, Any]] = ()
    """Golden examples (`Example.as_dict`) to check before the worker calls itself ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """GPU memory of one worker process, in MB, since its start."""

    allocated: int
    """What its tensors took when they took most."""
    reserved: int
    """What was set aside for them then, which is what `maxGPUMemory` bounds."""
    total: int
    """The device's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReport:
    """How a worker gets along with its device. Travels to the door as JSON."""

    batch_cap: int
    """The most requests that it takes as one batch now: its `batchSize`, or what fitted last."""
    out_of_memory: int = 0
    """How often memory did not suffice since the process began to answer."""
    memory: MemoryUse | None = None
    """None where nobody can tell: on the CPU, or without PyTorch."""

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> DeviceReport:
        """Make one of what `dataclasses.asdict` has made of it."""
        memory = value["memory"]
        return cls(**{**value, "memory": None if memory is None else MemoryUse(**memory)})


class Measured(Protocol):
    """One value that a handler reported."""

    def as_dict(self) -> dict[str, Any]:
        """Return `name`, `value`, `unit`, `type` (`counter`, `gauge`, `histogram`), `dimensions`.

        `dimensions` are the labels: [name, value] each.
        """
        ...


class Servable(Protocol):
    """A loaded model.

    `hatch_mar.model.loading.load(options)` returns one, or raises `HandlerError` with the handler's
    traceback. `predict` never raises for a handler's mistake: it answers as TorchServe would.
    """

    def predict(self, requests: Sequence[Request]) -> list[Response]:
        """Answer `requests` as one batch, one response each, in order."""
        ...

    @property
    def can_overlap(self) -> bool:
        """Whether `handle` is a coroutine function, so that `predict_overlapped` may be called."""
        ...

    async def predict_overlapped(self, requests: Sequence[Request]) -> list[Response]:
        """Answer `requests` as `predict` does, perhaps while other batches are being answered."""
        ...

    def warm(self) -> None:
        """Run the batches that would be slow the first time, if the config has a section `cuda`."""
        ...

    def describe_forward(self) -> dict[str, Any] | None:
        """Return how the model runs, for JSON; None without a section `cuda`."""
        ...

    def take_apart(self) -> Stages | None:
        """Return the stages of a batch; None if batches have to be predicted one after the other.

        To be asked once, after the examples.
        """
        ...

    def check_examples(self) -> None:
        """Run the golden examples, and raise `GoldenError` naming the first that differs."""
        ...

    def drain_metrics(self) -> Sequence[Measured]:
        """Return what the handler measured since the last call, oldest first."""
        ...

    def listen(self, on_piece: OnPiece) -> None:
        """Hand every intermediate answer of a handler that streams to `on_piece`, at once.

        It may be called from any thread of the handler's.
        """
        ...

    @property
    def device_lost(self) -> bool:
        """Whether the device is beyond repair for this process: it must be replaced."""
        ...

    @property
    def device_fault(self) -> str:
        """Why it must be: `context` or `device`, a colon, and what was raised; else empty."""
        ...

    @property
    def batch_cap(self) -> int:
        """The most requests that should be given to `predict` at once: memory allows no more."""
        ...

    def report_device(self) -> DeviceReport | None:
        """Say how it gets along with its device; None if nothing has changed since last asked."""
        ...
