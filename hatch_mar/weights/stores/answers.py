"""What servers answer that do not give what was asked, as the errors that `stores` promises."""

from __future__ import annotations

import errno
import re
from http import HTTPStatus

_PASSING = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18})")
_LENGTH = re.compile(r"[0-9]{1,18}")
"""What fits into the sizes that file systems have: `int` does not take numbers of any length."""


def explain_status(status: int, *, server: str, missing: str, login: str) -> OSError:
    """Return the error that a status of 400 or more amounts to.

    Args:
        status: What the server answered.
        server: Who it is, with its own word for what is wrong if that is no secret: `S3`.
        missing: What a 404 says: "there is no such object".
        login: What to do where one may not read.
    """
    answer = f"{server} answers {int(status)}"
    if status in _PASSING:
        return ConnectionError(answer)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return PermissionError(f"{answer}; {login}")
    if status == HTTPStatus.NOT_FOUND:
        return FileNotFoundError(missing)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return OSError(errno.ESPIPE, f"{server} has nothing from there on")
    return OSError(answer)


def is_behind_the_end(error: OSError) -> bool:
    """Say whether `error` tells that what was asked for begins where nothing is any more."""
    return error.errno == errno.ESPIPE


def read_content_range(header: str | None) -> tuple[int, int] | None:
    """Return offset and size of the whole from a `Content-Range` header (RFC 9110, 14.4)."""
    found = _CONTENT_RANGE.fullmatch(header or "")
    return (int(found[1]), int(found[2])) if found else None


def read_length(header: str | None) -> int | None:
    """Return the bytes of a `Content-Length` header (RFC 9110, 8.6); None if it says none."""
    return int(header) if header is not None and _LENGTH.fullmatch(header) else None


def write_range(start: int, stop: int | None) -> str | None:
    """Return the `Range` header for bytes from `start` up to `stop`; None for all of them."""
    if not start and stop is None:
        return None
    return f"bytes={start}-{'' if stop is None else stop - 1}"
