"""A request becomes a row: the dict that a handler finds in `data`.

The rules are TorchServe's, surprises included, because handlers depend on them: one key per part,
and a value whose type depends on the content type the client sent.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hatch_mar.model.json_text import read_json

if TYPE_CHECKING:
    from hatch_mar.model.protocol import Part, Request

logger = logging.getLogger("hatch_mar.model")


def make_row(request: Request, *, decode: bool = True) -> dict[str, Any]:
    """Return the row of `request`: of parts with the same name, the last one counts."""
    read = decode_value if decode else _raw
    row = {}
    for part in request.parts:
        row[part.name] = read(part)
    return row


def decode_value(part: Part) -> Any:  # noqa: ANN401 - JSON may say anything
    """Return what `part` holds: JSON parsed, text as `str`, anything else as a `bytearray`.

    The content type must be exactly `application/json`, or begin with `text`, in lower case. A body
    that is not what its type says stays a `bytearray`: the handler decides what that means.
    """
    if part.content_type == "application/json":
        try:
            return read_json(part.data)
        except (ValueError, RecursionError) as error:
            logger.warning("%s: not JSON, passed on as bytes: %s", part.name, error)
    elif part.content_type.startswith("text"):
        try:
            return str(part.data, "utf-8")
        except ValueError as error:
            logger.warning("%s: not UTF-8, passed on as bytes: %s", part.name, error)
    return _raw(part)


def _raw(part: Part) -> bytearray:
    return bytearray(part.data)


def make_headers(request: Request) -> dict[str, Any]:
    """Return what `context.get_request_header` looks up, as TorchServe's handlers expect it.

    Under the name of each part its content type, as `{"content-type": ...}`; the client's headers
    under the names it sent, the last of a repeated one; `explain` and `url_path` where the route
    has them. Later ones replace earlier ones of the same name.
    """
    headers: dict[str, Any] = {}
    for part in request.parts:
        headers[part.name] = {"content-type": part.content_type}
    headers.update(request.headers)
    if request.explain is not None:
        headers["explain"] = str(request.explain)
    if request.url_path is not None:
        headers["url_path"] = request.url_path
    if request.describe:
        headers["describe"] = "True"
    return headers
