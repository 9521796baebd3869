"""Requests become batches: queues, workers and their processes behind one face, `Service`.

The names below are loaded when they are first asked for (PEP 562): a worker process imports this
package too, and must not pay for the door's asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hatch_mar.model.protocol import Part, Request, Response
    from hatch_mar.serve.batching.jobs import Job
    from hatch_mar.serve.deployment import Deployment
    from hatch_mar.serve.gathering import GatheredBody
    from hatch_mar.serve.headers import HeaderBlock
    from hatch_mar.serve.health import Health, ModelHealth, WorkerHealth
    from hatch_mar.serve.metrics.store import Metrics
    from hatch_mar.serve.pieces import PieceQueue
    from hatch_mar.serve.registry import Registration, Registry
    from hatch_mar.serve.rundir import make_root, prepare, remove_rundirs
    from hatch_mar.serve.service import Service
    from hatch_mar.serve.settings import ServiceSettings
    from hatch_mar.serve.store import ModelStore

__all__ = [
    "Deployment",
    "GatheredBody",
    "HeaderBlock",
    "Health",
    "Job",
    "Metrics",
    "ModelHealth",
    "ModelStore",
    "Part",
    "PieceQueue",
    "Registration",
    "Registry",
    "Request",
    "Response",
    "Service",
    "ServiceSettings",
    "WorkerHealth",
    "make_root",
    "prepare",
    "remove_rundirs",
]

_HOMES = {
    "Deployment": "hatch_mar.serve.deployment",
    "GatheredBody": "hatch_mar.serve.gathering",
    "HeaderBlock": "hatch_mar.serve.headers",
    "Health": "hatch_mar.serve.health",
    "Job": "hatch_mar.serve.batching.jobs",
    "Metrics": "hatch_mar.serve.metrics.store",
    "ModelHealth": "hatch_mar.serve.health",
    "ModelStore": "hatch_mar.serve.store",
    "Part": "hatch_mar.model.protocol",
    "PieceQueue": "hatch_mar.serve.pieces",
    "Registration": "hatch_mar.serve.registry",
    "Registry": "hatch_mar.serve.registry",
    "Request": "hatch_mar.model.protocol",
    "Response": "hatch_mar.model.protocol",
    "Service": "hatch_mar.serve.service",
    "ServiceSettings": "hatch_mar.serve.settings",
    "WorkerHealth": "hatch_mar.serve.health",
    "make_root": "hatch_mar.serve.rundir",
    "prepare": "hatch_mar.serve.rundir",
    "remove_rundirs": "hatch_mar.serve.rundir",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module attribute is depends on its name
    """Import the file that holds `name`, and keep what it defines."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
