"""What went wrong in a handler, and what its clients are told.

The statuses and the messages are TorchServe's; clients match on them.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from hatch_mar.model.protocol import Response

PREDICTION_FAILED = "Prediction failed"
OUT_OF_RESOURCES = "Out of resources"
INVALID_OUTPUT = "Invalid model predict output"
WRONG_COUNT = "number of batch response mismatched"
UNSUPPORTED_OUTPUT = "Unsupported model output data type."

OK, PAYLOAD_TOO_LARGE, INTERNAL_ERROR, INSUFFICIENT_STORAGE = 200, 413, 500, 507
STATUSES = range(200, 600)
"""What HTTP can say; whatever else a handler makes up becomes a 500."""

logger = logging.getLogger("hatch_mar.model")


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
    """Return what TorchServe tells a client whose batch raised `error`."""
    if isinstance(error, PredictionException):
        return _answer_refusal(error)
    if is_out_of_resources(error):
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


def is_out_of_resources(error: BaseException) -> bool:
    """Tell whether TorchServe would call `error` a lack of memory: anything that says CUDA is."""
    return isinstance(error, MemoryError) or _speaks_of_cuda(error)


def _speaks_of_cuda(error: BaseException) -> bool:
    try:
        return "CUDA" in str(error)
    except Exception:  # noqa: BLE001 - a handler's own class, whose `__str__` may do anything
        return False


def is_device_lost(error: BaseException) -> bool:
    """Tell whether `error` left a CUDA context in which nothing will ever work again.

    After an illegal access or a failed device assertion every later call fails, and so does the
    first one: waiting for the device. Running out of memory does no such harm.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not _speaks_of_cuda(error) or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def free_device_memory() -> None:
    """Give cached GPU memory back, so that a smaller batch may find room after a larger failed."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
