"""What is said to those who cannot be served: TorchServe's words where it has some."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hatch_mar.errors import DeadlineError, RequestTimeoutError, ServiceUnavailableError
from hatch_mar.model.protocol import Response
from hatch_mar.serve.headers import DEADLINE_HEADER

if TYPE_CHECKING:
    from hatch_mar.serve.process import Exit

_NO_WORKER = (
    "has no worker to serve inference request. Please use scale workers API to add workers. "
    "If this is a sequence inference, please check if it is closed, or expired; "
    "or exceeds maxSequenceJobQueueSize"
)
_NO_DESCRIBER = (
    "has no worker to serve describe request. Please use scale workers API to add workers."
)


def refuse(
    model: str, version: str | None, *, wait: float = 1, describe: bool = False
) -> ServiceUnavailableError:
    """Make the error for a full queue and for a model without workers.

    `version` is the one in the path, `wait` the seconds after which it is worth trying again.
    """
    subject = f'Model "{model}"'
    if version:
        subject += f' Version {version}"'  # the odd quotation mark is TorchServe's
    message = f"{subject} {_NO_DESCRIBER if describe else _NO_WORKER}"
    return ServiceUnavailableError(message, retry_after=max(1, math.ceil(wait)))


def desert(model: str, version: str | None) -> Response:
    """Make the answer for an accepted request whose model has lost its last worker."""
    error = refuse(model, version)
    return Response(error.status, str(error).encode(), error=True, error_type=error.type)


def expire(milliseconds: int) -> Response:
    """Make the answer for a request that has waited too long. TorchServe would say nothing."""
    error = RequestTimeoutError(f"no answer within clientTimeoutInMills={milliseconds}")
    return Response(error.status, str(error).encode(), error=True, error_type=error.type)


def miss() -> Response:
    """Make the answer for a request whose client said how long it waits, and that was too short."""
    error = DeadlineError(f"no answer within the request's own {DEADLINE_HEADER}")
    return Response(error.status, str(error).encode(), error=True, error_type=error.type)


def mourn(end: Exit) -> Response:
    """Make the answer for a request whose worker has died over it."""
    return Response(507 if end.out_of_memory else 500, b"Worker died.", error=True)
