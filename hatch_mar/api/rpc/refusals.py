"""What went wrong, in the words of gRPC and with the names of TorchServe's Java classes.

A status is described by the message and, on a line of its own, the class: clients match on both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from hatch_mar.errors import MethodNotAllowedError, RequestError, WrongTokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

_CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.FAILED_PRECONDITION,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    416: grpc.StatusCode.OUT_OF_RANGE,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_ARCHIVE = "org.pytorch.serve.archive"
_PLACES: Mapping[str, str] = {
    "DownloadArchiveException": _ARCHIVE,
    "InvalidModelException": f"{_ARCHIVE}.model",
    "InvalidModelVersionException": f"{_ARCHIVE}.model",
    "ModelException": f"{_ARCHIVE}.model",
    "ModelNotFoundException": f"{_ARCHIVE}.model",
    "ModelVersionNotFoundException": f"{_ARCHIVE}.model",
}
_HTTP = "org.pytorch.serve.http"


def code_of(status: int) -> grpc.StatusCode:
    """Return what an HTTP status is in gRPC."""
    return _CODES.get(status, grpc.StatusCode.INTERNAL)


def class_of(kind: str) -> str:
    """Return the full name of the Java class that TorchServe's error bodies call `kind`."""
    return f"{_PLACES.get(kind, _HTTP)}.{kind}"


def explain(error: RequestError) -> tuple[grpc.StatusCode, str]:
    """Return code and description of a refusal."""
    if isinstance(error, WrongTokenError):
        return grpc.StatusCode.PERMISSION_DENIED, str(error)
    if isinstance(error, MethodNotAllowedError):
        return (
            grpc.StatusCode.PERMISSION_DENIED,
            f"Model API disabled\n{class_of('ModelException')}",
        )
    return code_of(error.status), f"{error}\n{class_of(error.type)}"
