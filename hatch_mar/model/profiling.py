"""`ENABLE_TORCH_PROFILER`: every batch under torch's profiler, which writes a trace."""

# ruff: noqa: ANN401 - the profiler comes from a library that is loaded lazily

from __future__ import annotations

import importlib
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "ENABLE_TORCH_PROFILER"
"""Any value but an empty one."""

logger = logging.getLogger("hatch_mar.model")


def is_enabled() -> bool:
    """Tell whether the environment asks for the profiler."""
    return bool(os.environ.get(VARIABLE))


def open_profiler(arguments: dict[str, Any], manifest: Mapping[str, Any] | None) -> Any:
    """Return a `torch.profiler.profile`, not started, made with `arguments`.

    What they leave open is filled in, also in `arguments`, where handlers look for it: every
    activity that torch can watch here, shapes, and a Chrome trace in `pytorch_profiler/<model>` of
    the temporary directory.
    """
    profiler: Any = importlib.import_module("torch.profiler")
    if not arguments:
        arguments |= {"activities": list(profiler.supported_activities()), "record_shapes": True}
    if "on_trace_ready" not in arguments:
        name = ((manifest or {}).get("model") or {}).get("modelName") or ""
        directory = Path(tempfile.gettempdir()) / "pytorch_profiler" / name
        arguments["on_trace_ready"] = profiler.tensorboard_trace_handler(str(directory))
        logger.info("Saving chrome trace to : %s", directory)
    return profiler.profile(**arguments)


def record(name: str) -> Any:
    """Return a context manager that marks a step in the trace."""
    return importlib.import_module("torch.profiler").record_function(name)
