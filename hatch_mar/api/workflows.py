"""What whoever asks for TorchServe's workflows is told: there are none here, and what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from hatch_mar.api.answers import make_json
from hatch_mar.api.street import respond
from hatch_mar.errors import WorkflowNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from hatch_mar.api.guard import Gate

_NOT_SERVED = (
    "workflows are not served here: call one model after the other from your client, or write "
    "one handler that holds the networks of all steps"
)


def prediction_routes(methods: Sequence[str]) -> list[Route]:
    """Return the inference port's route, which takes every one of `methods`."""
    return [Route("/wfpredict/{workflow}", _refuse, methods=methods)]


def management_routes(guard: Gate) -> list[Route]:
    """Return the management port's routes; `guard` looks at every request first."""

    async def list_none(request: Request) -> Response:
        guard.check(request.headers)
        return respond(make_json({"workflows": []}))

    async def refuse(request: Request) -> Response:
        guard.check(request.headers)
        return await _refuse(request)

    return [
        Route("/workflows", list_none, methods=["GET"]),
        Route("/workflows", refuse, methods=["POST"]),
        Route("/workflows/{workflow}", refuse, methods=["GET", "DELETE"]),
    ]


async def _refuse(request: Request) -> Response:
    name = request.path_params.get("workflow") or request.query_params.get("url", "")
    raise WorkflowNotFoundError(f"Workflow not found: {name}: {_NOT_SERVED}")
