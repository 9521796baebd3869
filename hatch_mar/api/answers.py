"""Answers as TorchServe writes them: heads byte for byte, error bodies in its shape.

Every answer carries a fresh request id and the three headers that forbid caching; one whose status
is 400 or more closes the connection. A prediction has an empty reason phrase and no content type
unless its handler set one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from hatch_mar.errors import PredictionFailedError, RequestError, ServiceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.serve import Response

NO_CACHE = (
    ("Pragma", "no-cache"),
    ("Cache-Control", "no-cache; no-store, must-revalidate, private"),
    ("Expires", "Thu, 01 Jan 1970 00:00:00 UTC"),
)
JSON = "application/json"
TOO_LARGE = (
    b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)
"""What TorchServe sends, alone of all its answers without the usual headers."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BODILESS = frozenset({204, 304})
FIRST_ERROR = 400
_FIRST_FINAL = 200
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""RFC 9110, section 5: tokens; and visible characters, here Latin-1."""

_NO_CACHE_LINES = "".join(f"{name}: {value}\r\n" for name, value in NO_CACHE)
_OURS = frozenset(
    {"connection", "content-length", "transfer-encoding", "x-request-id", "keep-alive", "upgrade"}
    | {name.lower() for name, _ in NO_CACHE}
)
"""Headers that a handler cannot set: they frame the message or are the server's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer, before it is bytes."""

    status: int
    body: bytes | bytearray | memoryview
    phrase: str = ""
    content_type: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    is_ours: bool = False
    """Whether it is an error of the server's, and not what a handler said."""

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this answer."""
        return self.status >= FIRST_ERROR


def make_error(status: int, kind: str, message: str, *, retry_after: int | None = None) -> Answer:
    """Return TorchServe's error answer; `kind` is the name that its clients match on."""
    answer = make_json({"code": status, "type": kind, "message": message}, status=status)
    headers = () if retry_after is None else (("Retry-After", str(retry_after)),)
    return replace(answer, headers=headers, is_ours=True)


def make_json(value: object, *, status: int = 200) -> Answer:
    """Return a JSON answer, indented by two and ended by a newline as TorchServe's are."""
    # A lone surrogate has no UTF-8; as JSON's own escape it can be written.
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    body = text.encode(errors="backslashreplace")
    return Answer(status=status, body=body, phrase=phrase_of(status), content_type=JSON)


def answer_error(error: RequestError) -> Answer:
    """Return the answer that `error` stands for."""
    if isinstance(error, ServiceUnavailableError):
        return _refuse(error.type, str(error), error.retry_after)
    return make_error(error.status, error.type, str(error), retry_after=error.retry_after)


def answer_response(response: Response, limit: int) -> Answer:
    """Return the answer to a prediction; an error where the body is larger than `limit` bytes."""
    if response.error:
        message = bytes(response.body).decode(errors="replace")
        return make_error(response.status, response.error_type, message)
    if len(response.body) > limit:
        return _fail(f"Response of {len(response.body)} bytes is over the limit of {limit} bytes.")
    if response.status < _FIRST_FINAL or response.status not in range(1000):
        return _fail(f"Handler set the status {response.status}, which is no HTTP status.")
    if broken := _find_broken(response):
        return _fail(f"Handler set {broken}, which is not legal in an HTTP head.")
    return Answer(
        status=response.status,
        body=response.body,
        phrase=response.phrase,
        content_type=response.content_type,
        headers=[pair for pair in response.headers if pair[0].lower() not in _OURS],
    )


def phrase_of(status: int) -> str:
    """Return the reason phrase of a status, empty for one that has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def render_head(
    answer: Answer,
    request_id: str,
    *,
    keep_alive: bool,
    more: str = "",
    chunked: bool | None = None,
) -> bytes:
    """Return the status line and headers of `answer`, up to and with the empty line.

    `more` is header lines that the operator wants on every answer. Of a stream the body's length is
    not known: it is `chunked`, or for a client that knows no chunks it ends with the connection.
    """
    lines = [f"HTTP/1.1 {answer.status} {answer.phrase}\r\n"]
    named = {name.lower() for name, _ in answer.headers}
    if answer.content_type and "content-type" not in named:
        lines.append(f"content-type: {answer.content_type}\r\n")
    lines += [f"{name}: {value}\r\n" for name, value in answer.headers]
    lines.append(f"x-request-id: {request_id}\r\n{_NO_CACHE_LINES}")
    lines.append(more)
    if chunked:
        lines.append("transfer-encoding: chunked\r\n")
    elif chunked is None and answer.status not in BODILESS:
        lines.append(f"content-length: {len(answer.body)}\r\n")
    lines.append(f"connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n")
    return "".join(lines).encode("latin-1")


def render_plain_head(request_id: str, length: int, more: str = "") -> bytes:
    """Return the head of a prediction that set nothing, on a connection that stays."""
    return (
        f"HTTP/1.1 200 \r\nx-request-id: {request_id}\r\n{_NO_CACHE_LINES}{more}"
        f"content-length: {length}\r\nconnection: keep-alive\r\n\r\n"
    ).encode("latin-1")


@lru_cache(maxsize=64)
def _refuse(kind: str, message: str, retry_after: int | None) -> Answer:
    """Return a refusal: who is asked too much says the same again and again."""
    status = ServiceUnavailableError.status
    return make_error(status, kind, message, retry_after=retry_after)


def _fail(message: str) -> Answer:
    return make_error(500, PredictionFailedError.type, message)


def _find_broken(response: Response) -> str:
    """Name the first thing a handler set that would break the head, or smuggle in another one."""
    values = {"phrase": response.phrase, "content type": response.content_type or ""}
    for name, value in response.headers:
        if not _HEADER_NAME.fullmatch(name):
            return f"the header name {name!r}"
        values[f"header {name}"] = value
    for what, value in values.items():
        if not _HEADER_VALUE.fullmatch(value):
            return f"the {what} {value!r}"
    return ""
