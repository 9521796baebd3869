"""What went wrong in a handler, and what its clients are told.

The statuses and the messages are TorchServe's; clients match on them.

An exception is the item's, the batch's, the CUDA context's or the device's fault. PyTorch has types
and error codes for what CUDA says; ONNX Runtime and everybody else only have CUDA's own words. They
are those of `cudaGetErrorString` (cudaError_t in the CUDA runtime's reference).
"""

from __future__ import annotations

import logging
import sys
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from hatch_mar.model.protocol import Response

if TYPE_CHECKING:
    from collections.abc import Iterator

PREDICTION_FAILED = "Prediction failed"
OUT_OF_RESOURCES = "Out of resources"
INVALID_OUTPUT = "Invalid model predict output"
WRONG_COUNT = "number of batch response mismatched"
UNSUPPORTED_OUTPUT = "Unsupported model output data type."

OK, PAYLOAD_TOO_LARGE, INTERNAL_ERROR, INSUFFICIENT_STORAGE = 200, 413, 500, 507
STATUSES = range(200, 600)
"""What HTTP can say; whatever else a handler makes up becomes a 500."""

logger = logging.getLogger("hatch_mar.model")


class Fault(IntEnum):
    """Whose fault an exception is; the larger, the more is lost."""

    ITEM = 0
    """Of what was asked, or of the handler: others may be answered."""
    HOST_MEMORY = 1
    """The machine had no memory for so many at once."""
    MEMORY = 2
    """The device had no memory for so many at once."""
    CONTEXT = 3
    """The CUDA context is poisoned: nothing will work in this process any more."""
    DEVICE = 4
    """The device cannot be used: in another process neither."""

    @property
    def spoils_process(self) -> bool:
        """Whether the process has to be replaced."""
        return self >= Fault.CONTEXT

    @property
    def wants_room(self) -> bool:
        """Whether fewer at once may help."""
        return self in {Fault.HOST_MEMORY, Fault.MEMORY}


_CODES: dict[int, Fault] = {
    2: Fault.MEMORY,  # cudaErrorMemoryAllocation
    46: Fault.DEVICE,  # cudaErrorDevicesUnavailable
    100: Fault.DEVICE,  # cudaErrorNoDevice
    999: Fault.DEVICE,  # cudaErrorUnknown: what a GPU that has fallen off the bus answers
    **dict.fromkeys((214, 220, 226), Fault.CONTEXT),  # uncorrectable: ECC, NVLink; contained
    **dict.fromkeys((700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721), Fault.CONTEXT),
}
"""What CUDA's error codes mean; those that are missing do no lasting harm."""
_SPEAKERS = ("cuda", "cudnn", "cublas", "gpu", "bfc_arena", "bfcarena")
"""One of these is in whatever a library says of a GPU."""
_WORDS: tuple[tuple[Fault, tuple[str, ...]], ...] = (
    (
        Fault.DEVICE,
        (
            "no cuda-capable device is detected",
            "no cuda gpus are available",
            "cuda-capable device(s) is/are busy or unavailable",
            "gpu is lost",
            "fallen off the bus",
            "cuda error: unknown error",
            "cuda failure 999",
            "cuda unknown error",
        ),
    ),
    (
        Fault.CONTEXT,
        (
            "device-side assert",
            "illegal memory access",
            "illegal instruction",
            "misaligned address",
            "unspecified launch failure",
            "launch timed out and was terminated",
            "uncorrectable ecc error",
            "uncorrectable nvlink error",
            "hardware stack error",
            "invalid program counter",
            "operation not supported on global/shared address space",
            "context is destroyed",
        ),
    ),
    (
        Fault.MEMORY,
        (
            "out of memory",
            "cudnn_status_alloc_failed",
            "cublas_status_alloc_failed",
            "failed to allocate memory for requested buffer",
            "smaller than requested bytes",
        ),
    ),
)
_HOST_WORDS = ("defaultcpuallocator:", "std::bad_alloc")
_MOST_CAUSES = 8


class PredictionException(Exception):  # noqa: N818 - handlers import this name
    """A handler's own refusal: the client gets `message` with status `error_code`."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        """Say `message` to the client."""
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        """Render message and status."""
        return f"{self.message} : {self.error_code}"


def failure(status: int, message: str) -> Response:
    """Return an error answer."""
    return Response(status, message.encode(errors="replace"), error=True)


def answer_fault(error: BaseException) -> Response:
    """Return what TorchServe tells a client whose batch raised `error`.

    To TorchServe whatever says CUDA is a lack of memory. What means the same in other words, such
    as ONNX Runtime's or cuDNN's, is told alike here.
    """
    if isinstance(error, PredictionException):
        return _answer_refusal(error)
    lacking = isinstance(error, MemoryError) or _speaks_of_cuda(error)
    if lacking or classify(error) in {Fault.MEMORY, Fault.CONTEXT, Fault.DEVICE}:
        return failure(507, OUT_OF_RESOURCES)
    return failure(503, PREDICTION_FAILED)


def _answer_refusal(error: PredictionException) -> Response:
    status: Any = error.error_code  # whatever the handler made it
    if status == OK:  # TorchServe sends this body when a handler "refuses" with 200
        return Response(OK, b"error")
    if status == PAYLOAD_TOO_LARGE:
        status = INSUFFICIENT_STORAGE
    if not (isinstance(status, int) and status in STATUSES):
        status = INTERNAL_ERROR
    return failure(status, str(error.message))


def classify(error: BaseException) -> Fault:
    """Say whose fault `error` is, or, if that is worse, one that it was raised from."""
    return max(map(_classify_one, _trace(error)))


def diagnose(error: BaseException) -> Fault:
    """Say whose fault `error` is, as `classify` does, and ask the device where PyTorch uses it.

    After an illegal access or a failed device assertion every later call fails, and so does the
    first one: waiting for the device. Whatever an error says, a device that answers is well.
    """
    fault, cuda = classify(error), find_cuda()
    if cuda is None:
        return fault
    if not fault.spoils_process and not any(_says(one, _SPEAKERS) for one in _trace(error)):
        return fault
    try:
        cuda.synchronize()
    except RuntimeError as second:
        return max(Fault.CONTEXT, fault, classify(second))
    return Fault.ITEM if fault.spoils_process else fault


def find_cuda() -> Any:  # noqa: ANN401 - torch.cuda
    """Return `torch.cuda` if this process uses it; else None. PyTorch is not loaded for that."""
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None


def _classify_one(error: BaseException) -> Fault:
    if _is_torchs(error, "OutOfMemoryError"):
        return Fault.MEMORY
    code = getattr(error, "error_code", None)
    if _is_torchs(error, "AcceleratorError") and isinstance(code, int):
        return _CODES.get(code, Fault.ITEM)
    if isinstance(error, PredictionException):
        return Fault.ITEM
    if isinstance(error, MemoryError) or _says(error, _HOST_WORDS):
        return Fault.HOST_MEMORY
    if not _is_hearsay(error) and _says(error, _SPEAKERS):
        for fault, words in _WORDS:
            if _says(error, words):
                return fault
    return Fault.ITEM


def _trace(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and what it was raised from or while handling, newest first."""
    one: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if one is None:
            return
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _is_torchs(error: BaseException, name: str) -> bool:
    """Whether `error` is of the class of that name in PyTorch; old ones are without some."""
    kind = getattr(sys.modules.get("torch"), name, None)
    return kind is not None and isinstance(error, kind)


def _is_hearsay(error: BaseException) -> bool:
    """Whether what `error` says may be a client's words: a ValueError is not how CUDA fails."""
    own = isinstance(error, RuntimeError | OSError) or type(error).__module__ != "builtins"
    return not own


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    text = _text(error).lower()
    return any(word in text for word in words)


def _speaks_of_cuda(error: BaseException) -> bool:
    return "CUDA" in _text(error)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a handler's own class, whose `__str__` may do anything
        return ""


def let_go(error: BaseException) -> None:
    """Free what a failed batch has left behind, so that a smaller one may find room.

    The frames of its traceback hold the batch's tensors: they have to go first.
    """
    for one in [*_trace(error)]:
        one.__traceback__ = None
    cuda = find_cuda()
    if cuda is not None:
        cuda.empty_cache()
