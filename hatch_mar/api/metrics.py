"""`/metrics`, for Prometheus: any method, and any path below it, as in TorchServe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from hatch_mar.serve import Metrics

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PATHS = ("/metrics", "/metrics/{rest:path}")


def metrics_routes(metrics: Metrics, methods: Sequence[str]) -> list[Route]:
    """Return the routes that publish `metrics`; `name[]` in the query selects samples."""

    async def expose(request: Request) -> Response:
        text = metrics.expose(request.query_params.getlist("name[]"))
        return Response(text, headers={"content-type": METRICS_TYPE})

    return [Route(path, expose, methods=list(methods)) for path in _PATHS]
