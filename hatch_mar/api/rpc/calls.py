"""A call becomes a request of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hatch_mar.api.request_ids import next_request_id
from hatch_mar.serve import Request
from hatch_mar.serve.headers import HeaderBlock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.serve import Part


def make_request(
    context: Any,  # noqa: ANN401 - `grpc.aio.ServicerContext`, which is generic without need
    parts: list[Part],
    headers: Sequence[tuple[str, str]] = (),
) -> Request:
    """Return the request as a worker gets it: without headers of HTTP.

    The deadline of the call, if it has one, is the request's.
    """
    block = HeaderBlock.of(headers)
    seconds = context.time_remaining()
    if seconds is not None:
        block.patience = seconds
    return Request(next_request_id(), block, parts, url_path=None, explain=None)
