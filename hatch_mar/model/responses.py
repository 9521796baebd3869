"""What a handler returns becomes what the clients get.

As in TorchServe: bytes and text as they are, a tensor as `torch.save` writes it, anything else as
JSON with an indent of two.
"""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING, Any

from hatch_mar.model.faults import INVALID_OUTPUT, UNSUPPORTED_OUTPUT, WRONG_COUNT, failure
from hatch_mar.model.json_text import write_json
from hatch_mar.model.protocol import STREAM_NEXT, Response
from hatch_mar.model.tracebacks import summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.context import RequestProcessor

logger = logging.getLogger("hatch_mar.model")


def make_responses(
    outputs: Any,  # noqa: ANN401 - a handler may return anything
    processors: Sequence[RequestProcessor],
    stopping_criteria: Any = None,  # noqa: ANN401 - what a handler made of it
) -> list[Response]:
    """Pair `outputs` with the requests of the batch, or tell all of them what is wrong with it.

    A handler that answers in rounds (`continuousBatching`) leaves a function for each request in
    `context.stopping_criteria`, which says of its output whether it is the last one.
    """
    if not isinstance(outputs, list):
        return [failure(503, INVALID_OUTPUT) for _ in processors]
    if len(outputs) != len(processors):
        return [failure(503, WRONG_COUNT) for _ in processors]
    if stopping_criteria:
        for index, processor in enumerate(processors):
            is_last = stopping_criteria[index](outputs[index])
            if is_last is not None:
                processor.add_response_property(STREAM_NEXT, "false" if is_last else "true")
    return [make_response(out, each) for out, each in zip(outputs, processors, strict=True)]


def make_response(output: Any, processor: RequestProcessor) -> Response:  # noqa: ANN401
    """Return the answer to one request, with the status and headers that the handler set for it."""
    try:
        body = encode(output)
    except Exception as error:  # noqa: BLE001 - a handler's own class may raise anything
        logger.error("what the handler returned cannot be sent: %s", summarise(error))  # noqa: TRY400
        return failure(503, UNSUPPORTED_OUTPUT)
    phrase = processor.phrase or ""
    if processor.response_headers is None:
        return Response(processor.status, body, phrase)
    headers = dict(processor.response_headers)
    named = next((name for name in headers if name.lower() == "content-type"), None)
    content_type = None if named is None else headers.pop(named)
    return Response(processor.status, body, phrase, content_type, tuple(headers.items()))


def encode(value: Any) -> bytes | bytearray:  # noqa: ANN401
    """Return the body that says `value`.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: nothing can say it; or whatever a
            class of the handler's own raises when it is looked at.
    """
    if type(value) in (dict, list):
        return write_json(value)
    if isinstance(value, (bytes, bytearray)):
        return value
    if isinstance(value, str):
        return value.encode()
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        buffer = io.BytesIO()
        torch.save(value, buffer)
        return buffer.getvalue()
    return write_json(value)
