"""Load a model in the process that will run it."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hatch_mar.ts
from hatch_mar.errors import HandlerError, HatchMarError
from hatch_mar.model.context import make_context
from hatch_mar.model.devices import apply_memory_limit
from hatch_mar.model.entrypoint import find_entry_point, wrap_entry_point
from hatch_mar.model.servable import LoadedModel
from hatch_mar.model.tracebacks import render_traceback, summarise
from hatch_mar.ts.metrics.metric import Metric

if TYPE_CHECKING:
    from hatch_mar.model.context import Context
    from hatch_mar.model.entrypoint import EntryPoint
    from hatch_mar.model.protocol import LoadOptions


def enter_model_directory(directory: str) -> None:
    """Make `directory` the cwd and the first place to import from, as handlers expect."""
    os.chdir(directory)
    here = str(Path.cwd())
    sys.path[:] = [here, *(entry for entry in sys.path if entry not in ("", here))]
    importlib.invalidate_caches()


def load(options: LoadOptions) -> LoadedModel:
    """Find the handler, initialise it, and return it ready to answer.

    It enters the model's directory and makes the `ts` names importable for the whole process: one
    process serves one model.

    Raises:
        HandlerError: no such handler, not a handler, or it raised; with the handler's traceback.
    """
    enter_model_directory(options.model_dir)
    hatch_mar.ts.install(Path(options.model_dir))
    if not options.install_hooks:  # else the operator's own environment decides
        os.environ["HATCH_MAR_INSTALL_HOOKS"] = "0"
    os.environ["TS_DECODE_INPUT_REQUEST"] = str(options.decode_input_request).lower()
    if "cuda" in (options.config or {}):
        from hatch_mar.model.cuda.inductor import keep_compiled_code  # noqa: PLC0415 - few need it

        keep_compiled_code(options.config or {}, os.environ)
    apply_memory_limit(options.gpu_id, options.max_gpu_memory)
    context = make_context(options)
    Metric.collector = context.metrics
    entry = find_entry_point(options.handler, Path(options.model_dir))
    entry = wrap_entry_point(entry, options.envelope)
    _initialise(entry, context, options.handler)
    if "cuda" in (options.config or {}) and not context.is_accelerated:
        from hatch_mar.model.cuda.opening import warn_in_vain  # noqa: PLC0415 - few need it

        warn_in_vain(options.config or {})
    return LoadedModel(options, entry, context)


def _initialise(entry: EntryPoint, context: Context, handler: str) -> None:
    try:
        entry.initialize(context)
    except HatchMarError as error:
        raise HandlerError(f"handler {handler!r}: {error}") from error
    except (Exception, SystemExit) as error:
        raise HandlerError(
            f"handler {handler!r}: initialising it failed: {summarise(error)}",
            traceback=render_traceback(error),
        ) from error
