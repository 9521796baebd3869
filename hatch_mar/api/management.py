"""The management port: which models there are, and how each one is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from hatch_mar.api.answers import make_json
from hatch_mar.api.street import respond

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from hatch_mar.api.guard import Guard
    from hatch_mar.serve import Service

_PAGE = 100
"""Models per page, and the most that a caller gets."""


class Management:
    """Answers the management routes."""

    def __init__(self, service: Service, guard: Guard) -> None:
        """Manage `service`; `guard` looks at every request first."""
        self._service = service
        self._guard = guard

    def routes(self) -> list[Route]:
        """Return the routes, for an application to serve."""
        return [
            Route("/models", self.list_models, methods=["GET"]),
            Route("/models/{model}", self.describe, methods=["GET"]),
            Route("/models/{model}/{version}", self.describe, methods=["GET"]),
        ]

    async def list_models(self, request: Request) -> Response:
        """Answer `GET /models?limit=&next_page_token=`: names and URLs, sorted, in pages."""
        self._guard.check(request.headers)
        limit = _read_int(request.query_params.get("limit"), _PAGE)
        if not 0 <= limit <= _PAGE:
            limit = _PAGE
        start = max(0, _read_int(request.query_params.get("next_page_token"), 0))
        models = self._service.list_models()
        end = start + limit
        page: dict[str, Any] = {"nextPageToken": str(end)} if end <= len(models) else {}
        page["models"] = models[start:end]
        return respond(make_json(page))

    async def describe(self, request: Request) -> Response:
        """Answer `GET /models/{model}` and `/models/{model}/{version}`, which may be `all`."""
        self._guard.check(request.headers)
        version = request.path_params.get("version")
        return respond(make_json(self._service.describe(request.path_params["model"], version)))


def _read_int(text: str | None, default: int) -> int:
    """Return `text` as a number; TorchServe shrugs at what is none, and takes the default."""
    try:
        return int(text) if text is not None else default
    except ValueError:
        return default
