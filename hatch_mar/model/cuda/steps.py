"""How the handlers that we know answer one batch in three steps, each of which may be elsewhere."""

# ruff: noqa: ANN401, SLF001 - models are untyped; `factory.py` travels alone: ours looks private there

from __future__ import annotations

import copy
import importlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from hatch_mar.model.base_handler import BaseHandler
from hatch_mar.model.factory import FactoryHandler, collate, divide, move, plain
from hatch_mar.model.handlers.vision import VisionHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hatch_mar.model.context import Context

    Spread = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
    """`map`, or one that uses several threads."""


class Steps(Protocol):
    """One batch of a handler."""

    downloads: bool
    """Whether `finish` wants the model's output in host memory."""

    def prepare(self, rows: Sequence[Any], spread: Spread) -> Any:
        """Return what the model takes, on the device or not."""
        ...

    def infer(self, batch: Any) -> Any:
        """Return the model's output for it, all on the device now."""
        ...

    def finish(self, output: Any) -> Any:
        """Return what `handle` would have returned."""
        ...

    def end(self) -> None:
        """Let the handler have what was learnt."""
        ...


def start_steps(handler: BaseHandler | FactoryHandler, context: Context, started: float) -> Steps:
    """Return the steps of a batch of `handler`, begun at `started` (`time.perf_counter`)."""
    if isinstance(handler, FactoryHandler):
        return FactorySteps(handler, context)
    return HandlerSteps(handler, context, started)


class FactorySteps:
    """`FactoryHandler.handle` in three steps: samples may be prepared beside each other.

    Inputs that do not fit together, and a model that does not keep a batch dimension, or of which
    that is not known yet, are left to the handler, which then runs the model in `infer` as often as
    it takes.
    """

    downloads = True

    def __init__(self, handler: FactoryHandler, context: Context) -> None:
        """Answer a batch of `handler`."""
        self._handler = handler
        self._context = context
        self._inputs: list[Any] = []
        self._outputs: list[Any] | None = None

    def prepare(self, rows: Sequence[Any], spread: Spread) -> Any:
        """See `Steps.prepare`; None if the handler has to see to it."""
        self._inputs = list(spread(self._read, enumerate(rows)))
        with _inference_mode():
            known = len(rows) == 1 or self._handler._batchable
            return collate(self._inputs) if known else None

    def infer(self, batch: Any) -> Any:
        """See `Steps.infer`."""
        handler, inputs = self._handler, self._inputs
        with _inference_mode():
            if batch is not None:
                output = handler._run(batch)
                if len(inputs) == 1:
                    parts = has_parts(output, 1)
                    handler._batchable = parts and handler._batchable is not False
                    return output
                if has_parts(output, len(inputs)):
                    return output
                handler._batchable = False
            self._outputs = handler.infer(inputs)
            return None

    def finish(self, output: Any) -> list[Any]:
        """See `Steps.finish`."""
        outputs = self._outputs
        if outputs is None:
            output = move(output, "cpu")  # what nobody could copy on the way
            outputs = divide(output, len(self._inputs)) or [output]
        with _inference_mode():
            return [plain(self._handler._postprocess(output)) for output in outputs]

    def end(self) -> None:
        """See `Steps.end`."""

    def _read(self, numbered: tuple[int, Any]) -> Any:
        index, row = numbered
        with _inference_mode():
            return self._handler._preprocess(self._handler._sample(row, index, self._context))


class HandlerSteps:
    """`BaseHandler.handle` in three steps, on a twin of the handler.

    The twin is a shallow copy: `self.context`, and whatever else the handler keeps of a batch, is
    this batch's. Postprocessing of ours that only takes numbers out of a tensor gets it in host
    memory; any other finds the output on the device, as it does without stages.
    """

    def __init__(self, handler: BaseHandler, context: Context, started: float) -> None:
        """Answer a batch of `handler`."""
        self._handler = handler
        self._twin: Any = copy.copy(handler)
        self._twin.context = context
        self._started = started
        kind = type(handler)
        self.downloads = kind.postprocess is BaseHandler.postprocess

    def prepare(self, rows: Sequence[Any], spread: Spread) -> Any:
        """See `Steps.prepare`.

        Our own preprocessing ends with a copy to the handler's device: that is ours to make.
        """
        twin = self._twin
        twin._count = len(rows)
        if not prepares_on_host(self._handler):
            return twin.preprocess(rows)
        twin.device = importlib.import_module("torch").device("cpu")
        try:
            if has_samples(twin):
                return twin._collate(list(spread(twin._read_image, rows)))
            return twin.preprocess(rows)
        finally:
            twin.device = self._handler.device

    def infer(self, batch: Any) -> Any:
        """See `Steps.infer`."""
        return self._twin.inference(batch)

    def finish(self, output: Any) -> Any:
        """See `Steps.finish`; it reports `HandlerTime` as `handle` does."""
        twin = self._twin
        answers = twin.postprocess(output)
        elapsed = round((time.perf_counter() - self._started) * 1000, 2)
        twin.context.metrics.add_time("HandlerTime", elapsed, None, "ms")
        return answers

    def end(self) -> None:
        """See `Steps.end`: whether the output has parts is known from a batch of one."""
        self._handler._divisible = self._twin._divisible
        self._handler._accelerated = self._twin._accelerated


def prepares_on_host(handler: Any) -> bool:
    """Tell whether the preprocessing of `handler` uses its device for a last copy only."""
    kind = type(handler)
    if issubclass(kind, VisionHandler):
        names = ("preprocess", "_read_image", "_collate")
        return all(getattr(kind, name).__module__.startswith("hatch_mar.") for name in names)
    return bool(kind.preprocess is BaseHandler.preprocess)


def has_samples(handler: BaseHandler | FactoryHandler) -> bool:
    """Tell whether the steps of `handler` prepare sample by sample."""
    if isinstance(handler, FactoryHandler):
        return True
    kind: Any = type(handler)
    images = issubclass(kind, VisionHandler) and kind.preprocess is VisionHandler.preprocess
    return images and prepares_on_host(handler)


def has_parts(output: Any, count: int) -> bool:
    """Tell whether `divide` would find `count` parts in `output`, without making them."""
    if isinstance(output, list):
        return len(output) == count
    if isinstance(output, (Mapping, tuple)):
        values = list(output.values() if isinstance(output, Mapping) else output)
        return bool(values) and all(value is None or has_parts(value, count) for value in values)
    shape: Any = getattr(output, "shape", ())
    return bool(len(shape)) and shape[0] == count


def _inference_mode() -> Any:
    return importlib.import_module("torch").inference_mode()
