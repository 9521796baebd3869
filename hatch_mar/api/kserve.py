"""What KServe asks of a server besides predictions: V1's list and readiness, V2's health.

TorchServe answers V2's only with `ts_open_inference_protocol`, and V1's on its management port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.routing import Route

from hatch_mar.api.answers import make_json
from hatch_mar.api.openapi import VERSION
from hatch_mar.api.street import respond
from hatch_mar.errors import ModelNotFoundError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from hatch_mar.api.health import Readiness

_NOT_READY = 503
_NOT_IMPLEMENTED = 501
_ANY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class KServe:
    """The routes that KServe's controllers and clients poll."""

    def __init__(self, readiness: Readiness) -> None:
        """Answer by `readiness`."""
        self._readiness = readiness

    def v1_routes(self) -> list[Route]:
        """Return `/v1/models` and `/v1/models/{model}`."""
        return [
            Route("/v1/models", self.list_models),
            Route("/v1/models/{model}", self.model_ready, methods=_ANY_METHOD),
        ]

    def v2_routes(self) -> list[Route]:
        """Return V2's routes: any method is answered, as TorchServe does."""
        paths = {
            "/v2": self.metadata,
            "/v2/health/live": self.live,
            "/v2/health/ready": self.ready,
            "/v2/models/{model}/versions/{rest:path}": self.refuse_version,
            "/v2/models/{model}/ready": self.model_ready,
        }
        return [Route(path, answer, methods=_ANY_METHOD) for path, answer in paths.items()]

    async def list_models(self, _: Request) -> Response:
        """Answer the names of all models."""
        names = [model["modelName"] for model in self._readiness.service.list_models()]
        return respond(make_json({"models": names}))

    async def model_ready(self, request: Request) -> Response:
        """Answer whether a model's default version is ready.

        Raises:
            ModelNotFoundError: no such model.
            HTTPException: something else is asked of it than how it is.
        """
        name = request.path_params["model"]
        if ":" in name or request.method not in {"GET", "HEAD"}:
            raise HTTPException(404)
        versions = self._readiness.service.health().models.get(name)
        if versions is None:
            raise ModelNotFoundError(f"Model not found: {name}")
        ready = any(version.default and version.ready for version in versions.values())
        return respond(
            make_json({"name": name, "ready": ready}, status=200 if ready else _NOT_READY)
        )

    async def metadata(self, _: Request) -> Response:
        """Answer who we are. `extenstion` is how TorchServe spells it."""
        value = {"name": "Torchserve", "version": VERSION, "extenstion": ["kserve", "kubeflow"]}
        return respond(make_json(value))

    async def live(self, _: Request) -> Response:
        """Answer that we are there."""
        return respond(make_json({"live": True}))

    async def ready(self, _: Request) -> Response:
        """Answer whether every model is ready."""
        ready = not self._readiness.reasons()
        return respond(make_json({"ready": ready}, status=200 if ready else _NOT_READY))

    async def refuse_version(self, _: Request) -> Response:
        """Answer that V2 knows no versions here."""
        value = {"error": "Model versioning is not yet supported."}
        return respond(make_json(value, status=_NOT_IMPLEMENTED))
