"""What a handler returns becomes what the clients get.

As in TorchServe: bytes and text as they are, a tensor as `torch.save` writes it, anything else as
JSON with an indent of two.
"""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

from hatch_mar.model.faults import INVALID_OUTPUT, UNSUPPORTED_OUTPUT, WRONG_COUNT, failure
from hatch_mar.model.protocol import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hatch_mar.model.context import RequestProcessor


def make_responses(
    outputs: Any,  # noqa: ANN401 - a handler may return anything
    processors: Sequence[RequestProcessor],
) -> list[Response]:
    """Pair `outputs` with the requests of the batch, or tell all of them what is wrong with it."""
    if not isinstance(outputs, list):
        return [failure(503, INVALID_OUTPUT) for _ in processors]
    if len(outputs) != len(processors):
        return [failure(503, WRONG_COUNT) for _ in processors]
    return [make_response(*pair) for pair in zip(outputs, processors, strict=True)]


def make_response(output: Any, processor: RequestProcessor) -> Response:  # noqa: ANN401
    """Return the answer to one request, with the status and headers that the handler set for it."""
    try:
        body = encode(output)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return failure(503, UNSUPPORTED_OUTPUT)
    if processor.response_headers is None:
        return Response(processor.status, body, processor.phrase)
    headers = dict(processor.response_headers)
    named = next((name for name in headers if name.lower() == "content-type"), None)
    content_type = None if named is None else headers.pop(named)
    return Response(processor.status, body, processor.phrase, content_type, tuple(headers.items()))


def encode(value: Any) -> bytes | bytearray:  # noqa: ANN401
    """Return the body that says `value`.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: nothing can say it.
    """
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray):
        return value
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        buffer = io.BytesIO()
        torch.save(value, buffer)
        return buffer.getvalue()
    return encode_json(value).encode()


def encode_json(value: Any) -> str:  # noqa: ANN401
    """Return exactly `json.dumps(value, indent=2)`, sooner.

    The standard encoder leaves C as soon as it must indent. A container of scalars needs no indent
    but between its items, which the C encoder can write as its separator: a list of a thousand
    floats takes a quarter of the time.
    """
    return _encode_nested(value, 0)


def _encode_nested(value: Any, depth: int) -> str:  # noqa: ANN401
    if not isinstance(value, dict | list | tuple) or not value:
        return json.dumps(value)
    items = value.values() if isinstance(value, dict) else value
    if not any(isinstance(item, dict | list | tuple) and item for item in items):
        text = _flat_encoder(depth)(value)
        return f"{text[0]}\n{'  ' * (depth + 1)}{text[1:-1]}\n{'  ' * depth}{text[-1]}"
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            return json.dumps(value, indent=2).replace("\n", "\n" + "  " * depth)
        parts = [
            f"{json.dumps(key)}: {_encode_nested(item, depth + 1)}" for key, item in value.items()
        ]
    else:
        parts = [_encode_nested(item, depth + 1) for item in value]
    left, right = "{}" if isinstance(value, dict) else "[]"
    pad = "\n" + "  " * (depth + 1)
    return f"{left}{pad}{(',' + pad).join(parts)}\n{'  ' * depth}{right}"


_flat_encoders: dict[int, Callable[[Any], str]] = {}


def _flat_encoder(depth: int) -> Callable[[Any], str]:
    """Return the encoder of a container of scalars at `depth`."""
    encoder = _flat_encoders.get(depth)
    if encoder is None:
        separator = ",\n" + "  " * (depth + 1)
        encoder = _flat_encoders[depth] = json.JSONEncoder(separators=(separator, ": ")).encode
    return encoder
