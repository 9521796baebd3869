"""The ASGI application: everything the runner answers, behind any server.

`create_app(service)` serves all of it but management on one port, as `serve-<name>` does.
TorchServe has three ports: an application for one of them is made by choosing its parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hatch_mar.api.answers import answer_error, make_error, make_json
from hatch_mar.api.health import Readiness
from hatch_mar.api.inference import DescriptionRoute, PredictionRoute
from hatch_mar.api.kserve import KServe
from hatch_mar.api.metrics import metrics_routes
from hatch_mar.api.openapi import describe_api
from hatch_mar.api.portgate import PortGate
from hatch_mar.api.street import Street, respond
from hatch_mar.api.workflows import prediction_routes
from hatch_mar.errors import (
    BodyTooLargeError,
    MethodNotAllowedError,
    RequestError,
    ResourceNotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, ExceptionHandler

    from hatch_mar.api.access_log import AccessLog
    from hatch_mar.api.answers import Answer
    from hatch_mar.api.cors import Cors
    from hatch_mar.api.management import Management
    from hatch_mar.api.tokens import Purpose, Tokens
    from hatch_mar.serve import Service

MAX_BODY = 6_553_500
"""TorchServe's `max_request_size` and `max_response_size`, in bytes."""
_CLIENT_GONE = 499
_METHOD_NOT_ALLOWED = 405
_ANY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_PING_PATHS = ("/ping", "/ping/{rest:path}")


def create_app(
    service: Service,
    *,
    readiness: Readiness | None = None,
    inference: bool = True,
    metrics: bool = True,
    management: Management | None = None,
    tokens: Tokens | None = None,
    access_log: AccessLog | None = None,
    max_request_size: int = MAX_BODY,
    max_response_size: int = MAX_BODY,
    cors: Cors | None = None,
    open_inference: bool = False,
) -> ASGIApp:
    """Return an ASGI application over `service`.

    Args:
        service: what answers.
        readiness: what `/ping` and `/readyz` go by; the service's own health unless given.
        inference: whether predictions and `/ping` are served.
        metrics: whether `/metrics` is served.
        management: answers those routes; None serves none.
        tokens: whose keys requests need; None lets everybody in.
        access_log: where each answer is noted.
        max_request_size: bytes of a request's body; more is answered 413.
        max_response_size: bytes of a prediction; more is answered 500.
        cors: what browsers are told about pages of other origins.
        open_inference: whether KServe V2's own routes are served
            (TorchServe's `ts_open_inference_protocol`).
    """
    readiness = readiness or Readiness(service=service)
    manages = management is not None
    description = make_json(describe_api(inference=inference, management=manages, metrics=metrics))
    routes: list[BaseRoute] = _health_routes(readiness, ping=inference)
    routes += _description_routes(description)
    if inference:
        kserve = KServe(readiness)
        if open_inference:
            routes += kserve.v2_routes()
        routes.append(
            PredictionRoute(
                service, max_request_size=max_request_size, max_response_size=max_response_size
            )
        )
        routes.append(DescriptionRoute(service))
        routes += kserve.v1_routes()
        routes += prediction_routes(_ANY_METHOD)
    if management is not None:
        routes += management.routes()
    if metrics:
        routes += metrics_routes(service.metrics, _ANY_METHOD)
    app = Starlette(routes=routes, exception_handlers=_ANSWERS)
    app.router.redirect_slashes = False
    purposes: list[Purpose] = ["inference"] * inference
    purposes += ["management"] * manages
    inner: ASGIApp = app
    if tokens is not None and purposes:
        inner = PortGate(app, tokens, purposes)
    return Street(inner, metrics=service.metrics, access_log=access_log, cors=cors)


def _health_routes(readiness: Readiness, *, ping: bool) -> list[BaseRoute]:
    async def livez(_: Request) -> Response:
        return respond(make_json({"status": "alive"}))

    async def readyz(_: Request) -> Response:
        return respond(readiness.readyz())

    async def readyz_model(request: Request) -> Response:
        path = request.path_params
        return respond(readiness.readyz_model(path["model"], path.get("version")))

    async def pong(_: Request) -> Response:
        return respond(readiness.ping())

    return [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/readyz/{model}", readyz_model),
        Route("/readyz/{model}/{version}", readyz_model),
        *([Route(path, pong, methods=_ANY_METHOD) for path in _PING_PATHS] if ping else []),
    ]


def _description_routes(description: Answer) -> list[BaseRoute]:
    async def describe(_: Request) -> Response:
        return respond(description)

    return [
        Route("/", describe, methods=["OPTIONS"]),
        Route("/api-description", describe, methods=_ANY_METHOD),
    ]


async def _answer_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    if isinstance(error, BodyTooLargeError):
        return Response(status_code=error.status)
    return respond(answer_error(error))


async def _answer_http_exception(_: Request, error: Exception) -> Response:
    """Put Starlette's own refusals in TorchServe's words."""
    assert isinstance(error, HTTPException)
    if error.status_code == _METHOD_NOT_ALLOWED:
        refusal: RequestError = MethodNotAllowedError(
            "Requested method is not allowed, please refer to API document."
        )
    else:
        refusal = ResourceNotFoundError(
            "Requested resource is not found, please refer to API document."
        )
    return respond(answer_error(refusal))


async def _answer_nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=_CLIENT_GONE)


async def _answer_bug(_: Request, error: Exception) -> Response:
    return respond(make_error(500, type(error).__name__, "internal error"))


_ANSWERS: Mapping[Any, ExceptionHandler] = {
    RequestError: _answer_request_error,
    HTTPException: _answer_http_exception,
    ClientDisconnect: _answer_nobody,
    Exception: _answer_bug,
}
