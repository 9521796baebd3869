"""What the operator decides about every model of a runner."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hatch_mar.serve.output import Streams, inherit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

Device = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Values that hold unless a model's own model-config.yaml says otherwise."""

    workers: int | None = None
    """Workers per model; None: `minWorkers` where the config sets both bounds, else one per GPU, or
    one on CPU."""
    default_workers: int | None = None
    """Workers of a model of which nobody says how many; None: one per GPU, or one on CPU."""
    device: Device = "auto"
    """`cpu` and `gpu` overrule `deviceType`; `gpu` without a GPU is an error, not a fallback."""
    job_queue_size: int = 100
    """Requests that may wait per model version, where `jobQueueSize` is not set."""
    decode_input_request: bool = True
    limit_max_image_pixels: bool = True
    install_hooks: bool = True
    """Whether `install_packages` and `unpack_dependencies` of a handler may run."""
    envelope: str | None = None
    """`service_envelope` of config.properties: wraps every model's handler."""
    check_examples: bool = True
    """Whether golden examples are checked before a model is ready."""
    model_metrics: Sequence[Mapping[str, Any]] = ()
    """What `metrics.yaml` declares for handlers: name, unit, type, dimensions."""
    system_metrics: bool = True
    """Whether the machine's processor, memory, disk and GPUs are among the metrics."""
    output: Callable[[int, str, str], AbstractContextManager[Streams]] = inherit
    """What a worker, of which it is told the id, the model and the version, writes to."""
    python: str = sys.executable
    """Interpreter of the workers, where a deployment names none of its own."""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """Environment of the workers; also where CUDA_VISIBLE_DEVICES is read."""
