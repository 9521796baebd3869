"""What management does, whoever asks for it: over HTTP or over gRPC, in the same words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from hatch_mar.api.request_ids import next_request_id
from hatch_mar.errors import (
    BadRequestError,
    MethodNotAllowedError,
    ModelVersionNotFoundError,
    PredictionFailedError,
)
from hatch_mar.serve import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatch_mar.serve import Registration, Registry, Service

PAGE = 100
"""Models per page, and the most that a caller gets."""
NOT_ALLOWED = "Requested method is not allowed, please refer to API document."


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a wish: TorchServe's words for it."""

    status: int
    message: str


class Operations:
    """Everything that can be asked about models, and done with them."""

    def __init__(
        self,
        service: Service,
        registry: Registry | None,
        *,
        enabled: bool,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Manage `service` through `registry`.

        Models come and go only if `enabled` (TorchServe's model control, off by default) and there
        is a registry; the rest is always there. `on_change` is called after whatever changes what
        is served.
        """
        self._service = service
        self._registry = registry
        self._enabled = enabled
        self._on_change = on_change

    def list_models(self, limit: int | None, token: int | None) -> dict[str, Any]:
        """Return a page of names and URLs, sorted, and the token of the next page, if any."""
        limit = PAGE if limit is None or not 0 <= limit <= PAGE else limit
        start = max(0, token or 0)
        models = self._service.list_models()
        end = start + limit
        page: dict[str, Any] = {"nextPageToken": str(end)} if end <= len(models) else {}
        return {**page, "models": models[start:end]}

    async def describe(
        self, model: str, version: str | None, *, customized: bool = False
    ) -> list[dict[str, Any]]:
        """Return a description per version; `version` may be `all`.

        With `customized`, each has what its handler says of itself: a job for one of its workers.

        Raises:
            ModelNotFoundError, ModelVersionNotFoundError: there is none.
            ServiceUnavailableError: there is no worker to ask.
        """
        found = self._service.describe(model, version)
        if customized:
            for each in found:
                asked = each["modelVersion"] if version == "all" else version
                each["customizedMetadata"] = await self._ask(model, asked)
        return found

    def explain_batching(self, model: str, version: str | None) -> dict[str, Any]:
        """Return what is known of a version's batches, and why they are as they are.

        Raises:
            ModelNotFoundError, ModelVersionNotFoundError: there is none.
        """
        return self._service.explain_batching(model, version)

    async def _ask(self, model: str, version: str | None) -> dict[str, Any]:
        request = Request(id=next_request_id(), headers=(), parts=(), describe=True)
        response = await self._service.predict(model, version, request)
        text = bytes(response.body).decode(errors="replace")
        if response.error:
            raise PredictionFailedError(text, status=response.status)
        try:
            value = json.loads(text)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    async def register(self, registration: Registration) -> Outcome:
        """Serve one more model version.

        Raises:
            MethodNotAllowedError: models may not come and go.
            RequestError: as `Registry.register`.
        """
        registry = self.demand_control()
        deployment = await registry.register(registration)
        self._on_change()
        workers = deployment.workers or 0
        if workers and not registration.synchronous:
            return Outcome(status=HTTPStatus.ACCEPTED, message="Processing worker updates...")
        message = (
            f'Model "{deployment.name}" Version: {deployment.version} registered with '
            f"{workers} initial workers"
        )
        if not workers:
            message += ". Use scale workers API to add workers for the model."
        return Outcome(status=HTTPStatus.OK, message=message)

    async def unregister(self, model: str, version: str | None) -> Outcome:
        """Stop serving a version, the default one if None.

        Raises:
            MethodNotAllowedError: models may not come and go.
            RequestError: as `Registry.unregister`.
        """
        await self.demand_control().unregister(model, version)
        self._on_change()
        return Outcome(status=HTTPStatus.OK, message=f'Model "{model}" unregistered')

    async def scale(
        self,
        model: str,
        version: str | None,
        *,
        minimum: int | None,
        maximum: int | None,
        synchronous: bool,
    ) -> Outcome:
        """Run at least `minimum` workers (None: one), and at most `maximum` (None: `minimum`).

        Raises:
            BadRequestError: that is no number of workers.
            RequestError: as `Registry.scale`.
        """
        minimum = 1 if minimum is None else minimum
        maximum = minimum if maximum is None else maximum
        if minimum < 0:
            raise BadRequestError("min_worker cannot be negative.")
        if maximum < minimum:
            raise BadRequestError("max_worker cannot be less than min_worker.")
        assert self._registry is not None
        await self._registry.scale(model, version, minimum, maximum, synchronous=synchronous)
        self._on_change()
        if not synchronous:
            return Outcome(status=HTTPStatus.ACCEPTED, message="Processing worker updates...")
        which = f"{model}, version: {version}" if version else model
        return Outcome(
            status=HTTPStatus.OK, message=f"Workers scaled to {minimum} for model: {which}"
        )

    def is_ready(self, model: str) -> bool:
        """Say whether the default version of `model` answers; one without workers does not.

        Raises:
            ModelNotFoundError: there is none.
        """
        default, _ = self._service.versions(model)
        health = self._service.health().models[model][default]
        return health.ready and health.state != "scaled-to-zero"

    def set_default(self, model: str, version: str) -> Outcome:
        """Let paths without a version lead to `version`.

        Raises:
            ModelNotFoundError, ModelVersionNotFoundError: there is none.
        """
        try:
            self._service.set_default(model, version)
        except ModelVersionNotFoundError as error:
            raise ModelVersionNotFoundError(
                f"Model version {version} does not exist for model {model}"
            ) from error
        self._on_change()
        return Outcome(
            status=HTTPStatus.OK,
            message=f'Default version successfully updated for model "{model}" to "{version}"',
        )

    def demand_control(self) -> Registry:
        """Return the registry.

        Raises:
            MethodNotAllowedError: models may not come and go.
        """
        if self._registry is None or not self._enabled:
            raise MethodNotAllowedError(NOT_ALLOWED)
        return self._registry
