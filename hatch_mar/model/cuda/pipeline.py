"""Batches overlap: while the model runs on one, the next is prepared, the one before is finished.

Three streams: copies to the device, the model (the default stream, on which it was loaded and
warmed), and copies back. Events order them: the model waits for its batch's copy, the copy back for
the model. A batch has a slot from its begin to its end, and whatever the device reads for it is
held until the device is done, so that no memory is used twice at a time.
"""

# ruff: noqa: ANN401 - batches and outputs are whatever the model takes and gives

from __future__ import annotations

import contextlib
import importlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hatch_mar.model.base_handler import BaseHandler
from hatch_mar.model.context import RequestProcessor
from hatch_mar.model.cuda.layer import open_layer
from hatch_mar.model.cuda.safety import count_processors, find_obstacle, find_risk
from hatch_mar.model.cuda.section import CudaOptions, read_cuda_options
from hatch_mar.model.cuda.staging import Slot, list_tensors, transform
from hatch_mar.model.cuda.steps import has_samples, start_steps
from hatch_mar.model.faults import Fault, PredictionException, classify
from hatch_mar.model.tracebacks import summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hatch_mar.model.context import Context
    from hatch_mar.model.cuda.layer import Layer
    from hatch_mar.model.cuda.steps import Steps
    from hatch_mar.model.factory import FactoryHandler
    from hatch_mar.model.protocol import Request, Response
    from hatch_mar.model.servable import LoadedModel

DECODE_THREADS = 4
"""At most so many, unless the author says how many."""
IN_FLIGHT = 2
"""Batches beside the one that is prepared: one on the device, and one before or behind it."""
MOST_STRIKES = 3
"""After so many batches that fail in the stages alone there are no stages any more."""

logger = logging.getLogger("hatch_mar.model")


def open_pipeline(
    model: LoadedModel,
    handler: BaseHandler | FactoryHandler | None,
    layer: Layer | None = None,
) -> Pipeline | None:
    """Return the stages of `model`, if the author wants them or they are safe; else say why not.

    `handler` is None if it is of a kind that we do not know. `layer` is for tests: without it, the
    handler's device decides.
    """
    config = model.context.model_yaml_config
    options = read_cuda_options(config) or CudaOptions()
    wanted = options.pipeline
    if wanted is False:
        return None
    layer = layer or open_layer(getattr(handler, "device", None))
    if layer is None and handler is not None:
        if wanted:
            logger.warning("cuda.pipeline: ignored: there is no GPU here")
        return None
    obstacle = find_obstacle(handler, config)
    if obstacle is not None or handler is None or layer is None:
        level = logging.WARNING if wanted else logging.INFO
        logger.log(level, "batches do not overlap: the handler cannot be taken apart: %s", obstacle)
        return None
    risk = None if wanted else find_risk(handler)
    if risk is not None:
        logger.info(
            "batches do not overlap: the handler may mind: %s; if it does not, say "
            "`cuda: {pipeline: true}` in model-config.yaml",
            risk,
        )
        return None
    if isinstance(handler, BaseHandler):
        handler._get_runtime()  # noqa: SLF001 - once for all twins
    decoders = options.decode_threads or _choose_decoders(handler)
    logger.info("batches overlap: %d threads prepare them", decoders)
    return Pipeline(model, handler, layer, decoders=decoders)


class Passage:
    """One batch on its way through the stages."""

    __slots__ = ("away", "batch", "context", "failed", "output", "requests", "slot", "steps")

    def __init__(
        self, requests: Sequence[Request], context: Context, steps: Steps, slot: Slot
    ) -> None:
        """Begin."""
        self.requests = requests
        self.context = context
        self.steps = steps
        self.slot = slot
        self.batch: Any = None
        """What the model takes, from its copy to the end of the device's work."""
        self.output: Any = None
        self.away = False
        """Whether it was prepared in another thread than the model was loaded in."""
        self.failed = True
        """Whether it has not come to its end as it should."""


class Pipeline:
    """The stages of one handler's batches; see `hatch_mar.model.stages.Stages`."""

    threads = 1
    """Samples of one batch are decoded beside each other, which helps it more than company does."""

    def __init__(
        self,
        model: LoadedModel,
        handler: BaseHandler | FactoryHandler,
        layer: Layer,
        *,
        decoders: int = 1,
    ) -> None:
        """Take batches of `model` apart, whose samples `decoders` threads prepare, if they can."""
        self._model = model
        self._handler = handler
        self._layer = layer
        if decoders > 1 and not has_samples(handler):
            self.threads = decoders
        self.batches = self.threads + IN_FLIGHT
        self._pool = ThreadPoolExecutor(decoders, "decode") if decoders > self.threads else None
        self._copies, self._results = layer.stream(), layer.stream()
        self._slots = [Slot(layer) for _ in range(self.batches)]
        self._torch: Any = importlib.import_module("torch")
        self._grad = self._torch.is_grad_enabled()
        self._home = threading.get_ident()
        self._strikes: int | None = 0
        """How many batches failed in the stages and not without; None once one was answered."""
        layer.synchronize()  # the model's weights are there for every stream

    def admits(self, requests: Sequence[Request]) -> bool:
        """Tell whether these are predictions; see `Stages.admits`."""
        if self._strikes == MOST_STRIKES or any(one.explain or one.describe for one in requests):
            return False
        first = RequestProcessor(request=requests[0])  # a client's own header does it, too
        return not any(first.get_request_property(key) == "True" for key in ("describe", "explain"))

    def begin(self, requests: Sequence[Request]) -> Passage:
        """See `Stages.begin`.

        The context that the handler has between batches knows none: who still looks at it in a step
        gets an error, and not another batch's request.
        """
        shared = self._model.context
        if shared.list_answers():
            shared.begin(())
        context = shared.fork()
        context.begin(requests)
        steps = start_steps(self._handler, context, time.perf_counter())
        return Passage(requests, context, steps, self._slots.pop())

    def prepare(self, batch: Passage) -> None:
        """See `Stages.prepare`; what the handler itself puts on the device goes the same way."""
        slot, layer = batch.slot, self._layer
        batch.away = threading.get_ident() != self._home
        rows = self._model.make_rows(batch.requests)
        spread = map if self._pool is None else self._spread
        with layer.on(self._copies), self._torch.set_grad_enabled(self._grad):
            batch.batch = slot.upload(batch.steps.prepare(rows, spread))
            slot.uploaded.record(self._copies)

    def compute(self, batch: Passage) -> None:
        """See `Stages.compute`."""
        slot, layer = batch.slot, self._layer
        stream = layer.current()
        slot.uploaded.wait(stream)
        for tensor in filter(layer.holds, list_tensors(batch.batch)):
            layer.keep(tensor, stream)  # a model may hold its input until it has the next one
        output = batch.steps.infer(batch.batch)
        slot.computed.record(stream)
        slot.computed.wait(self._results)
        with layer.on(self._results):
            batch.output = transform(output, self._download) if batch.steps.downloads else output
            slot.done.record(self._results)
        for tensor in filter(layer.holds, list_tensors(output)):
            layer.keep(tensor, self._results)

    def finish(self, batch: Passage) -> list[Response]:
        """See `Stages.finish`; what the handler asks of the device runs beside the model."""
        batch.slot.done.synchronize()
        batch.slot.in_use = False
        batch.batch = None
        with self._layer.on(self._results), self._torch.set_grad_enabled(self._grad):
            outputs = batch.steps.finish(batch.output)
            self._results.synchronize()
        batch.output = None
        responses = self._model.finish(batch.context, batch.requests, outputs)
        batch.failed = False
        return responses

    def runs_again(self, batch: Passage, error: BaseException) -> bool:
        """See `Stages.runs_again`."""
        again = len(batch.requests) > 1 or self._is_suspect(error) or classify(error).wants_room
        return again and self._model.may_run_again(batch.context)

    def recover(self, batch: Passage, error: BaseException) -> list[Response]:
        """See `Stages.recover`.

        As long as no batch has been answered, it may be the threads that the handler minds: what
        belongs to the one that made it, such as a connection to a database, fails in every other.
        """
        self._release(batch)
        model, requests = self._model, batch.requests
        suspect = self._is_suspect(error) and model.may_run_again(batch.context)
        if suspect and len(requests) == 1:
            responses = model.predict(requests)
        else:
            responses = model.recover(batch.context, requests, error, beside=True)
        if suspect and not any(response.error for response in responses):
            self._strike(error)
        return responses

    def _is_suspect(self, error: BaseException) -> bool:
        """Tell whether `error` may come from the stages, and not from what was asked."""
        refused = isinstance(error, PredictionException)
        return self._strikes is not None and not refused and classify(error) is Fault.ITEM

    def _strike(self, error: BaseException) -> None:
        assert self._strikes is not None
        self._strikes += 1
        if self._strikes == MOST_STRIKES:
            logger.warning(
                "batches do not overlap any more: the first %d failed where they do, and only "
                "there: %s; `cuda: {pipeline: false}` in model-config.yaml says so from the start",
                *(MOST_STRIKES, summarise(error)),
            )

    def end(self, batch: Passage) -> None:
        """See `Stages.end`."""
        self._release(batch)
        if not batch.failed:
            batch.steps.end()
            if batch.away and self._strikes != MOST_STRIKES:
                self._strikes = None
        self._slots.append(batch.slot)
        self._model.settle(batch.context, fitted=0 if batch.failed else len(batch.requests))

    def _release(self, batch: Passage) -> None:
        """Let go of a failed batch's tensors, once nothing on the device reads them any more."""
        if batch.failed:
            if batch.slot.in_use:
                with contextlib.suppress(RuntimeError):  # the device failed: it reads nothing more
                    self._layer.synchronize()
                batch.slot.in_use = False
            batch.batch = batch.output = None

    def _spread(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """Do as `map` in our threads; what they ask of the device is done before it is copied."""
        assert self._pool is not None

        def call(item: Any) -> Any:
            with self._layer.on(self._copies), self._torch.set_grad_enabled(self._grad):
                return function(item)

        return self._pool.map(call, items)

    def _download(self, tensor: Any) -> Any:
        host = self._layer.pin(tensor)
        self._layer.download(tensor, host)
        return host


def _choose_decoders(handler: BaseHandler | FactoryHandler) -> int:
    """Return how many threads may prepare: an author's own code may not be meant for several."""
    ours = isinstance(handler, BaseHandler) and has_samples(handler)
    return min(DECODE_THREADS, count_processors()) if ours else 1
