"""The routes that predict, as ASGI: what the fast lane does not take, and other servers' way in."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.routing import BaseRoute, Match

from hatch_mar.api.answers import Answer, answer_response, make_json
from hatch_mar.api.openapi import describe_model
from hatch_mar.api.rows import read_parts
from hatch_mar.api.scope import HEADERS_AS_SENT, REQUEST_ID, TARGET
from hatch_mar.api.street import respond
from hatch_mar.api.targets import Target, choose_model, find_target, merge_query
from hatch_mar.errors import BodyTooLargeError
from hatch_mar.serve import HeaderBlock, PieceQueue, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from hatch_mar.serve import Response, Service

_SWALLOW = 2.0
"""Seconds for which the rest of a refused body is read, so that the client gets to the answer."""


class PredictionRoute(BaseRoute):
    """Every path that `find_target` knows, with any method but `OPTIONS`."""

    def __init__(self, service: Service, *, max_request_size: int, max_response_size: int) -> None:
        """Predict with `service`; sizes are bytes of a body."""
        self._service = service
        self._max_request_size = max_request_size
        self._max_response_size = max_response_size

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match by the table that the fast lane uses too."""
        if scope["type"] == "http" and scope["method"] != "OPTIONS":
            target = find_target(scope["path"])
            if target is not None:
                return Match.FULL, {TARGET: target}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, in one piece or as its handler streams it."""
        http = HttpRequest(scope, receive, send)
        pieces = await self._submit(http, scope[TARGET])
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            first = await _unless_gone(gone, pieces.__anext__())
            answer = answer_response(first, self._max_response_size)
            if pieces.exhausted or answer.is_ours:
                await respond(answer)(scope, receive, send)
            else:
                await self._stream(answer, pieces, gone, send)
        finally:
            gone.cancel()
            pieces.close()

    async def _stream(
        self, first: Answer, pieces: PieceQueue, gone: asyncio.Future[None], send: Send
    ) -> None:
        """Send pieces as they come. A stream that breaks is not completed: the server hangs up."""
        head = respond(replace(first, body=b"")).raw_headers
        headers = [pair for pair in head if pair[0] != b"content-length"]
        await send({"type": "http.response.start", "status": first.status, "headers": headers})
        body = first.body
        while True:
            last = pieces.exhausted
            await send({"type": "http.response.body", "body": bytes(body), "more_body": not last})
            if last:
                return
            piece = await _unless_gone(gone, pieces.__anext__())
            if piece.error or len(piece.body) > self._max_response_size:
                return
            body = piece.body

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:  # noqa: ANN401 - as in BaseRoute
        """Know no name: these paths are TorchServe's, nobody looks them up."""
        raise LookupError(name, path_params)

    async def _submit(self, http: HttpRequest, target: Target) -> PieceQueue:
        body = await read_body(http, self._max_request_size)
        parts = read_parts(http.headers.get("content-type", ""), body)
        model = target.model
        if target.reads_query:
            query = http.scope["query_string"]
            parts = merge_query(query, parts)
            model = choose_model(self._service, query, parts) if model is None else model
        request = Request(
            id=http.scope[REQUEST_ID],
            headers=_headers(http),
            parts=parts,
            url_path=target.url_path,
            explain=target.explain,
        )
        return PieceQueue(self._service, model or "", target.version, request)


class DescriptionRoute(BaseRoute):
    """`OPTIONS` of a path that predicts: the model behind it, described."""

    def __init__(self, service: Service) -> None:
        """Describe the models of `service`."""
        self._service = service

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match what `PredictionRoute` leaves out."""
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            target = find_target(scope["path"])
            if target is not None:
                return Match.FULL, {TARGET: target}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            RequestError: there is no such model or version.
        """
        target = scope[TARGET]
        model = target.model
        if model is None:
            model = choose_model(self._service, scope["query_string"], ())
        self._service.describe(model, target.version)
        await respond(make_json(describe_model(model)))(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:  # noqa: ANN401 - as in BaseRoute
        """Know no name."""
        raise LookupError(name, path_params)


async def read_body(http: HttpRequest, limit: int) -> bytearray:
    """Return the whole body.

    Raises:
        BodyTooLargeError: it has more than `limit` bytes.
        ClientDisconnect: the client is gone.
    """
    body = bytearray()
    stream = http.stream()
    async for chunk in stream:
        body += chunk
        if len(body) > limit:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SWALLOW):
                    async for _ in stream:
                        pass
            raise BodyTooLargeError("Request Entity Too Large")
    return body


async def _unless_gone(gone: asyncio.Future[None], reply: Awaitable[Response]) -> Response:
    """Await `reply`, and give up on it when the client does.

    Raises:
        ClientDisconnect: it did.
    """
    answered = asyncio.ensure_future(reply)
    either: set[asyncio.Future[Any]] = {answered, gone}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            return answered.result()
        raise ClientDisconnect
    finally:
        answered.cancel()


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _headers(http: HttpRequest) -> HeaderBlock:
    """Return the headers, their names as sent where the server tells."""
    as_sent = http.scope.get("extensions", {}).get(HEADERS_AS_SENT)
    return HeaderBlock.from_raw(http.headers.raw if as_sent is None else as_sent["raw"])
