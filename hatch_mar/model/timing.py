"""How long the steps of a handler take, for those who ask in model-config.yaml."""

from __future__ import annotations

import functools
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def timed(func: F) -> F:
    """Report how long a handler's method takes, as `ts_handler_<name>`, if its config wants that.

    The config key is `handler.profile: true`; the value is a gauge in milliseconds.
    """

    @functools.wraps(func)
    def measure(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any method
        if not _wants_profile(self.context):
            return func(self, *args, **kwargs)
        _wait_for_gpu()
        started = time.perf_counter()
        result = func(self, *args, **kwargs)
        _wait_for_gpu()
        elapsed = round((time.perf_counter() - started) * 1000, 2)
        self.context.metrics.add_time(f"ts_handler_{func.__name__}", elapsed, None, "ms")
        return result

    return cast("F", measure)


def _wait_for_gpu() -> None:
    """Let the GPU finish: what it was told to do belongs to the method that told it."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _wants_profile(context: Any) -> bool:  # noqa: ANN401 - a Context, or None before the first batch
    config = getattr(context, "model_yaml_config", None) or {}
    section = config.get("handler")
    return isinstance(section, dict) and bool(section.get("profile"))
