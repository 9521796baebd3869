"""The truth about every model: can it answer, and if not, why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

ModelState = Literal["loading", "ready", "restarting", "failed", "stopping", "scaled-to-zero"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHealth:
    """One worker slot."""

    id: int
    pid: int | None
    state: str
    """A state of `hatch_mar.serve.slot`: starting, loading, ready, busy, stopping, dead."""
    device: str
    """`cpu`, or `gpu:N` with the physical index."""
    deaths: int = 0
    """How often a process of this slot died without being asked to."""
    loaded: bool = False
    """Whether a process of this slot has ever been ready."""
    reason: str = ""
    """Why the last process died: exit code or signal, and the last line of its traceback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelHealth:
    """One version of one model."""

    state: ModelState
    reason: str = ""
    """Why it is not ready, or what is wrong though it is; empty when all is well."""
    workers: tuple[WorkerHealth, ...] = ()
    min_workers: int = 0
    default: bool = False
    """Whether a path without a version leads here."""

    @property
    def ready(self) -> bool:
        """Whether a request would be taken and answered; a model scaled to zero does no harm."""
        return self.state in {"ready", "scaled-to-zero"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Everything that is served."""

    models: Mapping[str, Mapping[str, ModelHealth]]
    """By name, then by version."""
    closing: bool = False
    """Whether the runner is shutting down: it answers what it accepted, and takes nothing new."""

    @property
    def ready(self) -> bool:
        """Whether every version of every model is ready."""
        return not self.closing and all(
            model.ready for versions in self.models.values() for model in versions.values()
        )
