"""An exchange whose body is here becomes a request of the service."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hatch_mar.api.answers import answer_error, make_error
from hatch_mar.api.rows import read_form
from hatch_mar.api.targets import choose_model, merge_query
from hatch_mar.errors import RequestError
from hatch_mar.serve import Part, Request

if TYPE_CHECKING:
    from hatch_mar.api.exchange import Exchange
    from hatch_mar.api.lane import Lane

logger = logging.getLogger("hatch_mar.api")


def submit(lane: Lane, exchange: Exchange) -> None:
    """Hand `exchange` to the service of `lane`; what it refuses is answered at once."""
    head = exchange.head
    target = head.target
    try:
        if lane.tokens is not None:
            lane.tokens.check("inference", head.authorization)
        model = target.model
        if head.media_type is not None:
            parts = [Part("body", head.media_type, exchange.body)]
        else:
            parts = read_form(head.content_type, exchange.body)
        exchange.body = b""  # a connection that rests holds none
        if target.reads_query:
            query = head.url.partition(b"?")[2]
            parts = merge_query(query, parts)
            model = model or choose_model(lane.service, query, parts)
        request = Request(exchange.request_id, head.headers, parts, target.url_path, target.explain)
        take = exchange.reply, exchange.take_piece
        exchange.job = lane.service.submit(model or "", target.version, request, *take)
    except RequestError as error:
        exchange.answer(answer_error(error))
    except Exception as error:  # a bug of ours must not look like the client's bad request
        logger.exception("%s", head.log_entry)
        exchange.answer(make_error(500, type(error).__name__, "internal error"))
