"""What runs between a batch on the device and the model's output there."""

# ruff: noqa: ANN401 - batches and outputs are what the model takes and gives

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import torch

from hatch_mar.model.cuda.buckets import (
    Form,
    NotInRowsError,
    change_tensors,
    choose_bucket,
    cut,
    measure,
    pad,
    resolve_buckets,
)
from hatch_mar.model.cuda.graphs import Graphs
from hatch_mar.model.cuda.precision import TOLERANCES, Precision, lay_channels_last
from hatch_mar.model.runtimes.modules import call_model, place
from hatch_mar.model.tracebacks import summarise

if TYPE_CHECKING:
    from hatch_mar.model.cuda.layer import Layer
    from hatch_mar.model.cuda.section import CudaOptions

logger = logging.getLogger("hatch_mar.model")


class Forward:
    """The model, called as its section `cuda` says.

    Its work goes to the calling thread's current stream. The output is the caller's own: later
    batches do not touch it.
    """

    def __init__(
        self,
        model: Any,
        *,
        device: torch.device,
        options: CudaOptions,
        batch_size: int,
        layer: Layer | None = None,
    ) -> None:
        """Run `model`, which is on `device`; `layer` is the device, unless that is the CPU.

        Raises:
            HandlerError: the device cannot compute so.
        """
        self.model = model
        self.buckets = resolve_buckets(options.buckets, batch_size)
        """Lengths of the batches that the model sees; none: any."""
        self.ran = False
        """Whether anybody has called it: a handler may call its model by itself."""
        self._device = device
        self._batch_size = batch_size
        self._channels_last = options.channels_last
        self._precision = Precision(options.precision, device)
        self._graphs: Graphs | None = None
        self._in_rows: bool | None = None
        self._lock = threading.RLock()
        self._ahead: Any = None
        self._ahead_is_due = options.aot_inductor
        if options.channels_last:
            model.to(memory_format=torch.channels_last)
        if options.graphs and layer is not None:
            tolerance = TOLERANCES[options.precision]
            self._graphs = Graphs(layer, self._compute, tolerance=tolerance)

    def __call__(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the output for `batch`: a tensor, a tuple (positional) or a mapping (keywords).

        With further arguments, and for what is not rows of tensors, there are no buckets.
        """
        with self._lock, torch.inference_mode():
            self.ran = True
            batch = place(batch, self._device)
            if args or kwargs or not (self.buckets or self._ahead_is_due):
                return self._compute(self._lay_out(batch), *args, **kwargs)
            form = measure(batch)
            if form is not None and form.length and self._ahead_is_due:
                self._compile_ahead(self._lay_out(batch))
            bucket = None if form is None else choose_bucket(self.buckets, form.length)
            if form is not None and bucket is not None and self._gives_rows(batch, form):
                try:
                    return self._run_bucket(batch, form, bucket)
                except NotInRowsError as error:
                    self._give_buckets_up(error)
            return self._compute(self._lay_out(batch))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of batches to warm with, ascending."""
        return self.buckets or tuple(sorted({1, self._batch_size}))

    def settle(self) -> None:
        """Hear that the model is warm: from now on a client waits for whatever is done first."""
        if self._ahead_is_due:
            self._ahead_is_due = False
            logger.warning(
                "cuda.aotInductor: nothing was compiled, the model runs as it is: a golden example "
                "(tool.mar.examples) would say what its input looks like"
            )

    def describe(self) -> dict[str, Any]:
        """Return, as JSON can say it, how the model runs: keys as in the section."""
        told: dict[str, Any] = {"precision": self._precision.name}
        if self._channels_last:
            told["channelsLast"] = True
        if self._ahead is not None:
            told["aotInductor"] = True
        if self.buckets:
            told["buckets"] = list(self.buckets)
        if self._graphs is not None:
            told["graphs"] = self._graphs.captured
            told["withoutGraph"] = {str(size): why for size, why in self._graphs.refused.items()}
        return told

    def _run_bucket(self, batch: Any, form: Form, bucket: int) -> Any:
        graphs = self._graphs
        if graphs is not None and graphs.is_open(bucket):
            graphs.capture(bucket, form.shape, self._lay_out(pad(batch, bucket)))
        if graphs is not None and graphs.has(bucket, form.shape):
            return graphs.replay(bucket, batch, form.length)
        output = self._compute(self._lay_out(pad(batch, bucket)))
        return cut(output, bucket, form.length)

    def _compute(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        if self._ahead is not None:
            return self._precision.restore(call_model(self._ahead, batch, *args, **kwargs))
        with self._precision:
            output = call_model(self.model, batch, *args, **kwargs)
        return self._precision.restore(output)

    def _compile_ahead(self, batch: Any) -> None:
        """Compile the model, or find what was compiled, for any number of rows like `batch`'s."""
        from hatch_mar.model.cuda.ahead import compile_module  # noqa: PLC0415 - it loads a compiler

        self._ahead_is_due = False
        model = self._precision.bind(self.model)
        try:
            with torch.inference_mode(mode=False):
                sample = change_tensors(batch, torch.clone)
                self._ahead = compile_module(model, sample, self._device)
        except Exception as error:  # noqa: BLE001 - a compiler may raise anything, and none must stop the model
            why = summarise(error)
            logger.warning("cuda.aotInductor: failed, the model runs as it is: %s", why)

    def _lay_out(self, batch: Any) -> Any:
        return lay_channels_last(batch) if self._channels_last else batch

    def _gives_rows(self, batch: Any, form: Form) -> bool:
        """Learn, from the first batch, whether all of an output is as long as its batch.

        A batch of one tells: there nothing is as long by chance. Where one row is no bucket the
        model may not take it, and two other lengths tell as much.
        """
        if self._in_rows is None:
            first = cut(batch, form.length, 1)
            try:
                for size in self.buckets[:1] if self.buckets[0] == 1 else self.buckets[:2]:
                    cut(self._compute(self._lay_out(pad(first, size))), size, 1)
            except NotInRowsError as error:
                self._give_buckets_up(error)
            else:
                self._in_rows = True
        return bool(self._in_rows)

    def _give_buckets_up(self, error: NotInRowsError) -> None:
        self._in_rows = False
        self.buckets = ()
        logger.warning("cuda.buckets: %s; batches run as long as they are", error)
