"""Intermediate answers: what a handler sends to its clients before it returns.

`send_intermediate_predict_response` is what handlers call, by the names that TorchServe gives it in
`ts.handler_utils.utils` and `ts.protocol.otf_message_handler`. Each call is one piece of the
answer; what the handler returns in the end is the last one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hatch_mar.model.faults import OK, failure
from hatch_mar.model.protocol import STREAM_NEXT
from hatch_mar.model.responses import make_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.model.context import Context


def send_intermediate_predict_response(
    ret: Any,  # noqa: ANN401 - a list, or anything else that has items
    req_id_map: Mapping[int, str],
    message: str,
    code: int,
    context: Context | None = None,
) -> None:
    """Send `ret[index]` to the client of each request of `req_id_map`, as a piece of its answer.

    Status, headers and content type that `context` has for a request at its first piece become
    those of its answer. In a group of processes that `torchrun` started only the first one sends.

    Args:
        ret: one item per request of the batch, of any type that a handler may return.
        req_id_map: `context.request_ids`, or some of it.
        message: what the clients are told if `code` is not 200; they get nothing more then.
        code: 200, or the status of an error that ends the answers.
        context: what `handle` was given.

    Raises:
        ValueError: there is no context to send through.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    if context is None:
        raise ValueError("no context: pass the one that `handle` was given")
    pieces = []
    for index, request_id in req_id_map.items():
        if code == OK:
            context.set_response_header(index, STREAM_NEXT, "true")
            piece = make_response(ret[index], context.request_processor[index])
        else:
            piece = failure(code, message)
        pieces.append((request_id, piece))
    context.send_pieces(pieces)
