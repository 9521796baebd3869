"""The management port: models come and go, and tell how they are doing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from hatch_mar.api.answers import make_json
from hatch_mar.api.inference import read_body
from hatch_mar.api.openapi import describe_management
from hatch_mar.api.street import respond
from hatch_mar.api.workflows import management_routes
from hatch_mar.errors import BadRequestError, InvalidModelError
from hatch_mar.serve import Registration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from hatch_mar.api.guard import Gate
    from hatch_mar.api.operations import Operations, Outcome
    from hatch_mar.api.tokens import Tokens

_JSON = "application/json"
_LARGEST_BODY = 1 << 20
"""Bytes of a registration's parameters."""
ANY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_COMPILED = "LSP"
"""TorchServe's C++ backend."""
_RUNTIMES = ("python", "python3", _COMPILED)
"""What TorchServe takes for `runtime`."""


class Management:
    """Answers the management routes."""

    def __init__(self, operations: Operations, guard: Gate, tokens: Tokens | None = None) -> None:
        """Answer with `operations`; `guard` looks at every request first.

        `tokens` are those that `GET /token` renews.
        """
        self._operations = operations
        self._guard = guard
        self._tokens = tokens

    def routes(self) -> list[Route]:
        """Return the routes, for an application to serve."""
        one, several = "/models/{model}", "/models/{model}/{version}"
        default = f"{several}/set-default"
        answers = [
            ("GET", "/models", self.list_models),
            # Before the descriptions: to them `batching` would be a version.
            *(("GET", f"{path}/batching", self.explain_batching) for path in (one, several)),
            ("POST", "/models", self.register),
            *(("GET", path, self.describe) for path in (one, several, default)),
            *(("PUT", path, self.scale) for path in (one, several)),
            *(("DELETE", path, self.unregister) for path in (one, several)),
            *(("OPTIONS", path, self.describe_api) for path in (one, several, default)),
            ("PUT", default, self.set_default),
            ("GET", "/v1/models/{model}", self.is_ready),
        ]
        # As in TorchServe, a slash at the end says nothing.
        routes = [
            Route(path + slash, answer, methods=[method])
            for method, path, answer in answers
            for slash in ("", "/")
        ]
        if self._tokens is not None:
            routes.append(Route("/token", self.renew_token, methods=ANY_METHOD))
        return [*routes, *management_routes(self._guard)]

    async def list_models(self, request: Request) -> Response:
        """Answer `GET /models?limit=&next_page_token=`: names and URLs, sorted, in pages."""
        self._guard.check(request.headers)
        query = request.query_params
        page = self._operations.list_models(
            _read_int(query.get("limit")), _read_int(query.get("next_page_token"))
        )
        return respond(make_json(page))

    async def describe(self, request: Request) -> Response:
        """Answer `GET /models/{model}` and `/models/{model}/{version}`, which may be `all`."""
        self._guard.check(request.headers)
        path = request.path_params
        found = await self._operations.describe(
            path["model"],
            path.get("version"),
            customized=_read_bool(request.query_params.get("customized"), default=False),
        )
        return respond(make_json(found))

    async def explain_batching(self, request: Request) -> Response:
        """Answer `GET /models/{model}/batching` and `/models/{model}/{version}/batching`."""
        self._guard.check(request.headers)
        path = request.path_params
        found = self._operations.explain_batching(path["model"], path.get("version"))
        return respond(make_json(found))

    async def register(self, request: Request) -> Response:
        """Answer `POST /models`, its parameters in the query or in a JSON body."""
        self._guard.check(request.headers)
        self._operations.demand_control()
        registration = read_registration(await _parameters(request))
        return _tell(await self._operations.register(registration))

    async def scale(self, request: Request) -> Response:
        """Answer `PUT /models/{model}` and `/models/{model}/{version}`."""
        self._guard.check(request.headers)
        query, path = request.query_params, request.path_params
        outcome = await self._operations.scale(
            path["model"],
            path.get("version") or query.get("model_version"),
            minimum=_read_int(query.get("min_worker")),
            maximum=_read_int(query.get("max_worker")),
            synchronous=_read_bool(query.get("synchronous"), default=False),
        )
        return _tell(outcome)

    async def unregister(self, request: Request) -> Response:
        """Answer `DELETE /models/{model}` and `/models/{model}/{version}`."""
        self._guard.check(request.headers)
        path = request.path_params
        outcome = await self._operations.unregister(path["model"], path.get("version"))
        return _tell(outcome)

    async def set_default(self, request: Request) -> Response:
        """Answer `PUT /models/{model}/{version}/set-default`."""
        self._guard.check(request.headers)
        path = request.path_params
        return _tell(self._operations.set_default(path["model"], path["version"]))

    async def describe_api(self, request: Request) -> Response:
        """Answer `OPTIONS` of a model: what can be done with it here."""
        return respond(make_json(describe_management(request.path_params["model"])))

    async def is_ready(self, request: Request) -> Response:
        """Answer `GET /v1/models/{model}`, KServe's question."""
        self._guard.check(request.headers)
        model = request.path_params["model"]
        ready = self._operations.is_ready(model)
        return respond(make_json({"name": model, "ready": ready}))

    async def renew_token(self, request: Request) -> Response:
        """Answer `GET /token?type=`: whoever has the API key gets another key written."""
        assert self._tokens is not None
        self._tokens.renew(
            request.query_params.get("type"), request.headers.get("authorization", "")
        )
        return Response(b"\n", headers={"content-type": _JSON})


async def _parameters(request: Request) -> Mapping[str, Any]:
    """Return the parameters of a registration.

    Raises:
        BadRequestError: the body is not the JSON object that it says it is.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != _JSON:
        return request.query_params
    try:
        found = json.loads(await read_body(request, _LARGEST_BODY))
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"The body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadRequestError("The body is not a JSON object.")
    return found


def read_registration(values: Mapping[str, Any]) -> Registration:
    """Return what `values` ask for.

    Raises:
        BadRequestError: they name no archive, or a runtime that there is none of.
        InvalidModelError: they name the one of TorchServe's that is not served here.
    """
    url = values.get("url")
    if url is None:
        raise BadRequestError("Parameter url is required.")
    workers = _read_int(values.get("initial_workers"))
    if workers is not None and workers < 0:
        raise BadRequestError("initial_workers cannot be negative.")
    runtime = values.get("runtime")
    if runtime and str(runtime) not in _RUNTIMES:
        raise BadRequestError(f"Invalid RuntimeType value: {runtime}")
    if runtime == _COMPILED:
        raise InvalidModelError(
            "runtime LSP is TorchServe's C++ backend, which is not served here: give the model a "
            "handler in Python"
        )
    return Registration(
        url=str(url),
        model_name=_read_text(values.get("model_name")),
        handler=_read_text(values.get("handler")),
        batch_size=_read_positive(values.get("batch_size")),
        max_batch_delay=_read_positive(values.get("max_batch_delay")),
        response_timeout=_read_positive(values.get("response_timeout")),
        startup_timeout=_read_positive(values.get("startup_timeout")),
        initial_workers=workers,
        synchronous=_read_bool(values.get("synchronous"), default=True),
    )


def _tell(outcome: Outcome) -> Response:
    return respond(make_json({"status": outcome.message}, status=outcome.status))


def _read_text(value: object) -> str | None:
    return str(value) if value else None


def _read_int(value: object) -> int | None:
    """Return `value` as a number; TorchServe shrugs at what is none, and takes its default."""
    try:
        return int(str(value))
    except ValueError:
        return None


def _read_positive(value: object) -> int | None:
    found = _read_int(value)
    return found if found is not None and found > 0 else None


def _read_bool(value: object, *, default: bool) -> bool:
    """Return `value` as Java reads it: anything but `true` is false."""
    return default if value is None else str(value).lower() == "true"
