"""What every answer of the ASGI application has in common: headers, request id, access log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.responses import Response

from hatch_mar.api.access_log import describe
from hatch_mar.api.answers import BODILESS, FIRST_ERROR, NO_CACHE, Answer
from hatch_mar.api.request_ids import next_request_id
from hatch_mar.api.scope import REQUEST_ID

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from hatch_mar.api.access_log import AccessLog
    from hatch_mar.api.cors import Cors
    from hatch_mar.serve import Metrics

_NO_CACHE = [(name.lower().encode(), value.encode()) for name, value in NO_CACHE]


def respond(answer: Answer) -> Response:
    """Return `answer` for Starlette to send; ASGI has no place for its reason phrase."""
    body = b"" if answer.status in BODILESS else bytes(answer.body)
    response = Response(body, answer.status)
    pairs = list(answer.headers)
    if answer.content_type and not any(name.lower() == "content-type" for name, _ in pairs):
        pairs.insert(0, ("content-type", answer.content_type))
    response.raw_headers[:0] = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs
    ]
    return response


class Street:
    """Wraps an application: TorchServe's headers on every answer, a line in the log for each."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        access_log: AccessLog | None,
        cors: Cors | None = None,
    ) -> None:
        """Lead to `app`."""
        self._more = [
            (name.lower().encode(), value.encode("latin-1"))
            for name, value in (cors.pairs if cors else ())
        ]
        self._app = app
        self._metrics = metrics
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        scope[REQUEST_ID] = request_id = next_request_id()
        stays = _wants_to_stay(scope)

        async def send_dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                    *self._more,
                    *_NO_CACHE,
                    (b"connection", b"keep-alive" if stays and status < FIRST_ERROR else b"close"),
                ]
                self._note(scope, status, time.monotonic() - started, request_id)
            await send(message)

        await self._app(scope, receive, send_dressed)

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        self._metrics.count_response(status)
        if self._access_log is not None:
            query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            path = scope.get("raw_path", b"").decode("latin-1") or scope["path"]
            line = f"{scope['method']} {path}{query} HTTP/{scope['http_version']}"
            who_and_what = describe(scope.get("client"), line)
            self._access_log.add(who_and_what, status, seconds, request_id)


def _wants_to_stay(scope: Scope) -> bool:
    """Tell whether the client expects the connection to outlive the answer (RFC 9112, 9.3)."""
    wish = b",".join(value for name, value in scope["headers"] if name == b"connection").lower()
    # Whoever speaks an older version is let go by uvicorn, whatever it wishes.
    return b"close" not in wish and scope["http_version"] not in ("0.9", "1.0")
