"""A loaded model: batches in, answers out, whatever the handler does."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hatch_mar.model.batch_cap import BatchCap
from hatch_mar.model.devices import DeviceMonitor
from hatch_mar.model.faults import Fault, PredictionException, answer_fault, diagnose, let_go
from hatch_mar.model.metrics import Measurement, MetricTypes
from hatch_mar.model.protocol import HALVED, DeviceReport, join_pieces
from hatch_mar.model.responses import make_responses
from hatch_mar.model.rows import make_row
from hatch_mar.model.tracebacks import render_traceback, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.context import Context
    from hatch_mar.model.entrypoint import EntryPoint
    from hatch_mar.model.protocol import LoadOptions, OnPiece, Request, Response
    from hatch_mar.model.stages import Stages

logger = logging.getLogger("hatch_mar.model")


class LoadedModel:
    """What `load` returns: the `Servable` of `hatch_mar.model.protocol`."""

    def __init__(self, options: LoadOptions, entry: EntryPoint, context: Context) -> None:
        """Serve `entry`, which has been initialised with `context`."""
        self._options = options
        self._handle = entry.handle
        self._handler = entry.handler
        self._coroutine = entry.coroutine
        self._isolate = entry.retry_safe if options.isolate is None else options.isolate
        self._decode = options.decode_input_request
        self.context = context
        self._measured: list[Measurement] = []
        self.last_traceback = ""
        """Of the last batch that failed."""
        self.device_fault = ""
        """Why the device is beyond repair for this process, if it is: it answers, and exits."""
        self._device = DeviceMonitor(options.gpu_id)
        self._cap = BatchCap(options.batch_size)
        self._short = 0
        """How often memory did not suffice."""
        self._too_large = 0
        """How many requests found no room alone: nobody else's batch is to blame."""
        self._reported: DeviceReport | None = None

    @property
    def device_lost(self) -> bool:
        """Whether this process must be replaced; see `device_fault`."""
        return bool(self.device_fault)

    @property
    def batch_cap(self) -> int:
        """The most requests that `predict` should be given at once."""
        return self._cap.limit

    def predict(self, requests: Sequence[Request]) -> list[Response]:
        """Answer `requests`, in order; see `Servable.predict`.

        `SystemExit` and `KeyboardInterrupt` go through: they mean the worker, not the batch.
        """
        if len(requests) > 1 and any(one.explain or one.describe for one in requests):
            return self._predict_apart(requests)
        context = self.context
        rows = self.make_rows(requests)
        context.begin(requests)
        failure: BaseException | None = None
        outputs: Any = None
        try:
            outputs = self._handle(rows, context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - also a panic of a library in Rust
            failure = error  # handled below: what is raised on the way must not be chained to it
        if failure is not None:
            return self.recover(context, requests, failure)
        self._cap.fitted(len(requests))
        if context.stopping_criteria or context.has_streamed:
            return self.finish(context, requests, outputs)
        return make_responses(outputs, context.list_answers())

    def _predict_apart(self, requests: Sequence[Request]) -> list[Response]:
        """Answer what is no prediction by itself: a handler asks the first of its batch alone.

        In TorchServe the others get an explanation, too, or a prediction instead of one.
        """
        plain = [one for one in requests if not (one.explain or one.describe)]
        answered = iter(self.predict(plain) if plain else ())
        return [
            self.predict([one])[0] if one.explain or one.describe else next(answered)
            for one in requests
        ]

    @property
    def can_overlap(self) -> bool:
        """Whether `handle` is a coroutine function."""
        return self._coroutine is not None

    async def predict_overlapped(self, requests: Sequence[Request]) -> list[Response]:
        """Answer `requests` beside other batches; see `Servable.predict_overlapped`."""
        from asyncio import CancelledError  # noqa: PLC0415 - few workers have a use for asyncio

        assert self._coroutine is not None
        context = self.context.fork()
        rows = self.make_rows(requests)
        context.begin(requests)
        try:
            outputs = await self._coroutine(rows, context)
        except (SystemExit, KeyboardInterrupt, CancelledError):
            raise
        except BaseException as error:  # noqa: BLE001 - also a panic of a library in Rust
            return self._give_up(requests, error, self._note(error))
        finally:
            self._measured += context.metrics.drain()
        self._cap.fitted(len(requests))
        return self.finish(context, requests, outputs)

    def take_apart(self) -> Stages | None:
        """Return the stages of a batch, where a GPU makes that worth it; see `Servable`."""
        handler = self._handler
        device = getattr(handler, "device", None)
        if getattr(device, "type", "") != "cuda" and "cuda" not in self.context.model_yaml_config:
            return None
        from hatch_mar.model.cuda.pipeline import open_pipeline  # noqa: PLC0415 - for GPUs alone

        return open_pipeline(self, handler)

    def listen(self, on_piece: OnPiece) -> None:
        """Hand every intermediate answer to `on_piece`; see `Servable.listen`."""
        self.context.on_piece = on_piece

    def warm(self) -> None:
        """Run every kind of batch once; see `Servable.warm`."""
        if self.context.forward is not None:
            from hatch_mar.model.cuda.warming import warm  # noqa: PLC0415 - few models need it

            warm(self, self.context.forward, self._options)
            self.context.forward.settle()

    def describe_forward(self) -> dict[str, Any] | None:
        """Say how the model runs; see `Servable.describe_forward`."""
        forward = self.context.forward
        return None if forward is None else forward.describe()

    def check_examples(self) -> None:
        """Run the golden examples; see `Servable.check_examples`."""
        from hatch_mar.model.golden import check_example  # noqa: PLC0415 - once, if there are any

        for example in self._options.examples:
            self.last_traceback = ""
            check_example(self, example, self._options.model_dir)

    def drain_metrics(self) -> list[Measurement]:
        """Return what the handler measured since the last call."""
        measured, self._measured = self._measured, []
        return measured + self.context.metrics.drain()

    def report_device(self) -> DeviceReport | None:
        """Say how the worker gets along with its device; see `Servable.report_device`."""
        report = DeviceReport(
            batch_cap=self._cap.limit,
            out_of_memory=self._short,
            memory=self._device.measure(),
        )
        if report == self._reported:
            return None
        self._reported = report
        return report

    def make_rows(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        """Return what the handler finds in `data`."""
        return [make_row(request, decode=self._decode) for request in requests]

    def may_run_again(self, context: Context) -> bool:
        """Tell whether it is safe to run a batch that failed again."""
        return self._isolate and not (self.device_lost or context.has_streamed)

    def recover(
        self,
        context: Context,
        requests: Sequence[Request],
        error: BaseException,
        *,
        beside: bool = False,
    ) -> list[Response]:
        """Answer a batch that raised `error`, in halves if that is safe and may help.

        One that ran `beside` others may find room alone, even if it is of one request.
        """
        fault = self._note(error)
        if not self.may_run_again(context):
            return self._give_up(requests, error, fault)
        if len(requests) > 1:
            return self._halve(requests, error, fault)
        if beside and fault.wants_room:
            let_go(error)
            return self.predict(requests)
        return self._give_up(requests, error, fault)

    def settle(self, context: Context, *, fitted: int) -> None:
        """Keep what a batch of its own context measured; its `fitted` requests had room."""
        self._measured += context.metrics.drain()
        if fitted:
            self._cap.fitted(fitted)

    def _note(self, error: BaseException) -> Fault:
        """Say whose fault `error` is; remember it if this process cannot go on."""
        fault = diagnose(error)
        if fault.spoils_process and self._device.used:
            self.device_fault = self.device_fault or f"{fault.name.lower()}: {summarise(error)}"
        self._short += fault.wants_room
        return fault

    def finish(
        self,
        context: Context,
        requests: Sequence[Request],
        outputs: Any,  # noqa: ANN401 - a handler may return anything
    ) -> list[Response]:
        """Make the last of what was streamed, or of this round, into responses."""
        pieces, context.pieces = context.pieces, []
        criteria = context.stopping_criteria
        if not criteria:
            context.finish_stream()
        try:
            responses = make_responses(outputs, context.request_processor, criteria)
        except Exception as error:  # noqa: BLE001 - the criteria are the handler's own functions
            return self._give_up(requests, error)
        if not pieces:
            return responses
        return [
            join_pieces([piece for ident, piece in pieces if ident == request.id], response)
            for request, response in zip(requests, responses, strict=True)
        ]

    def _give_up(
        self, requests: Sequence[Request], error: BaseException, fault: Fault = Fault.ITEM
    ) -> list[Response]:
        """Log `error`, and answer it to everybody."""
        self.last_traceback = render_traceback(error)
        name, count = self._options.model_name, len(requests)
        if isinstance(error, PredictionException):
            logger.warning("%s: refused a batch of %d: %s", name, count, error)
        else:
            logger.error("%s: a batch of %d failed\n%s", name, count, self.last_traceback)
        responses = [answer_fault(error) for _ in requests]
        if fault.wants_room:
            let_go(error)
            self._too_large += count == 1
            self._lower_cap(count)
        return responses

    def _halve(
        self, requests: Sequence[Request], error: BaseException, fault: Fault
    ) -> list[Response]:
        logger.warning(
            "%s: a batch of %d failed (%s); running it in halves",
            self._options.model_name,
            len(requests),
            summarise(error),
        )
        self._measured.append(
            Measurement(name=HALVED, value=1, unit="Count", type=MetricTypes.COUNTER, dimensions=())
        )
        if fault.wants_room:
            let_go(error)
        error.__traceback__ = None  # its frames hold the failed batch's tensors
        middle, too_large = len(requests) // 2, self._too_large
        responses = self.predict(requests[:middle]) + self.predict(requests[middle:])
        if fault.wants_room and self._too_large == too_large:
            self._lower_cap(len(requests))
        return responses

    def _lower_cap(self, size: int) -> None:
        """Take smaller batches from now on: one of `size` found no room."""
        before = self._cap.limit
        self._cap.failed(size)
        if self._cap.limit < before:
            logger.warning(
                "%s: %d requests at once do not fit into memory; batches have at most %d for now",
                *(self._options.model_name, size, self._cap.limit),
            )
