"""The routes that predict, as ASGI: what the fast lane does not take, and other servers' way in."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.routing import BaseRoute, Match

from hatch_mar.api.answers import Answer, answer_response
from hatch_mar.api.rows import read_parts, read_query
from hatch_mar.api.scope import HEADERS_AS_SENT, REQUEST_ID, TARGET
from hatch_mar.api.street import respond
from hatch_mar.api.targets import Target, find_target
from hatch_mar.errors import BadRequestError, BodyTooLargeError
from hatch_mar.serve import HeaderBlock, Part, Request

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
        """Answer one request."""
        http = HttpRequest(scope, receive, send)
        answer = await self._predict(http, scope[TARGET])
        await respond(answer)(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:  # noqa: ANN401 - as in BaseRoute
        """Know no name: these paths are TorchServe's, nobody looks them up."""
        raise LookupError(name, path_params)

    async def _predict(self, http: HttpRequest, target: Target) -> Answer:
        body = await read_body(http, self._max_request_size)
        parts = read_parts(http.headers.get("content-type", ""), body)
        if target.reads_query:
            parts = _merge(read_query(http.scope["query_string"]), parts)
        request = Request(
            id=http.scope[REQUEST_ID],
            headers=_headers(http),
            parts=parts,
            url_path=target.url_path,
            explain=target.explain,
        )
        model = target.model or self._choose(parts)
        response = await _unless_gone(http, self._service.predict(model, target.version, request))
        return answer_response(response, self._max_response_size)

    def _choose(self, parts: list[Part]) -> str:
        """Return the model of a request whose path names none, as SageMaker's do."""
        named = [part for part in parts if part.name == "model_name"]
        if named:
            return bytes(named[0].data).decode(errors="replace")
        models = self._service.list_models()
        if len(models) == 1:
            return models[0]["modelName"]
        raise BadRequestError("Parameter model_name is required.")


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


async def _unless_gone(http: HttpRequest, reply: Awaitable[Response]) -> Response:
    """Await `reply`, and give up on it when the client does.

    Raises:
        ClientDisconnect: it did.
    """
    answered = asyncio.ensure_future(reply)
    gone = asyncio.ensure_future(_disconnected(http.receive))
    try:
        await asyncio.wait({answered, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            return answered.result()
        raise ClientDisconnect
    finally:
        for task in (answered, gone):
            task.cancel()


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _headers(http: HttpRequest) -> HeaderBlock:
    """Return the headers, their names as sent where the server tells."""
    as_sent = http.scope.get("extensions", {}).get(HEADERS_AS_SENT)
    return HeaderBlock.from_raw(http.headers.raw if as_sent is None else as_sent["raw"])


def _merge(*groups: list[Part]) -> list[Part]:
    """Return all parts, the last one of a repeated name."""
    return list({part.name: part for group in groups for part in group}.values())
