"""Is it alive, is it ready, and if not, why: `/livez`, `/readyz`, `/ping`.

Readiness is the truth about answering: weights verified, model loaded, golden examples passed, for
every model that the operator asked for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hatch_mar.api.answers import Answer, make_json
from hatch_mar.errors import ModelNotFoundError, ModelVersionNotFoundError

if TYPE_CHECKING:
    from hatch_mar.serve import ModelHealth, Service

_NOT_READY = 503
_UNHEALTHY = 500
"""TorchServe's own status of `/ping`, which its load balancers are set up for."""


@dataclass(slots=True, kw_only=True)
class Readiness:
    """Whether the runner can answer for everything that it was asked to serve."""

    service: Service
    missing: dict[str, str] = field(default_factory=dict)
    """What was asked for and is not in the service (yet): name, and why."""
    as_torchserve: bool = False
    """Whether `/ping` goes by TorchServe's rule: see `ping`."""

    def reasons(self) -> list[str]:
        """Say what stands in the way, one line each; empty when ready."""
        health = self.service.health()
        reasons = [f"{name}: {reason}" for name, reason in self.missing.items()]
        for name, versions in health.models.items():
            reasons += [
                f"{name} {version}: {model.reason or model.state}"
                for version, model in versions.items()
                if not model.ready
            ]
        if health.closing:
            reasons.append("shutting down")
        return reasons

    def ping(self) -> Answer:
        """Answer `/ping` in TorchServe's shape, the reason added.

        By TorchServe's rule a runner is healthy although a model is missing or still loading, as
        long as no default version has fewer workers than it should, the dying ones counted in. One
        that has never been ready is not counted: it is tried again, and forgotten if that fails.
        """
        if self.as_torchserve:
            status = "Unhealthy" if self._lacks_workers() else "Healthy"
            return make_json({"status": status}, status=200 if status == "Healthy" else _UNHEALTHY)
        reasons = self.reasons()
        if reasons:
            return make_json({"status": "Unhealthy", "reason": reasons[0]}, status=_UNHEALTHY)
        return make_json({"status": "Healthy"})

    def _lacks_workers(self) -> bool:
        return any(
            sum(worker.state != "dead" for worker in model.workers) < model.min_workers
            for versions in self.service.health().models.values()
            for model in versions.values()
            if model.default and any(worker.loaded for worker in model.workers)
        )

    def readyz(self) -> Answer:
        """Answer `/readyz`: the whole, and each model."""
        reasons = self.reasons()
        models = {
            name: {version: describe_health(model) for version, model in versions.items()}
            for name, versions in self.service.health().models.items()
        }
        value = {"ready": not reasons, "reasons": reasons, "models": models}
        return make_json(value, status=_NOT_READY if reasons else 200)

    def readyz_model(self, name: str, version: str | None) -> Answer:
        """Answer `/readyz/{model}` for its default version, or `/readyz/{model}/{version}`.

        Raises:
            ModelNotFoundError: no such model.
            ModelVersionNotFoundError: no such version.
        """
        versions = self.service.health().models.get(name, {})
        for candidate, model in versions.items():
            if candidate == version or (version is None and model.default):
                status = 200 if model.ready else _NOT_READY
                return make_json(describe_health(model), status=status)
        if name in self.missing:
            return make_json({"ready": False, "reason": self.missing[name]}, status=_NOT_READY)
        if not versions:
            raise ModelNotFoundError(f"Model not found: {name}")
        raise ModelVersionNotFoundError(
            f"Model version: {version} does not exist for model: {name}"
        )


def describe_health(model: ModelHealth) -> dict[str, Any]:
    """Return one version's health as JSON has it."""
    return {
        "ready": model.ready,
        "state": model.state,
        "reason": model.reason,
        "default": model.default,
        "minWorkers": model.min_workers,
        "workers": [asdict(worker) for worker in model.workers],
    }
