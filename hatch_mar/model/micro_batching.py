"""Micro-batching: a batch goes through a handler's three steps in pieces, which overlap."""

# ruff: noqa: ANN401 - the steps of a handler may take and return anything

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hatch_mar.model import profiling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STEPS = ("preprocess", "inference", "postprocess")


class MicroBatching:
    """Stands in for the `handle` of a handler derived from BaseHandler.

    While one piece of the batch is on the GPU the next one is preprocessed. Unlike in TorchServe a
    step that raises fails the batch, instead of leaving it waiting for ever.
    """

    def __init__(
        self,
        parent_handler: Any,
        micro_batch_size: int = 1,
        parallelism: dict[str, int] | None = None,
    ) -> None:
        """Run the steps of `parent_handler` on `micro_batch_size` rows at a time.

        Args:
            parent_handler: the handler.
            micro_batch_size: rows of a piece.
            parallelism: threads of each step, one if not given.

        Raises:
            ValueError: there is no such step, or it would have no thread.
        """
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self._parallelism: dict[str, int] = {}
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._current = threading.local()
        self.parallelism = dict(parallelism or {})

    @property
    def parallelism(self) -> Mapping[str, int]:
        """Threads of each step; setting it changes those that are named."""
        return dict(self._parallelism)

    @parallelism.setter
    def parallelism(self, parallelism: Mapping[str, Any]) -> None:
        for step, threads in parallelism.items():
            if step not in STEPS or not isinstance(threads, int) or threads < 1:
                raise ValueError(
                    f"micro_batching.parallelism.{step}: {threads!r}: must be a number of threads, "
                    f"at least 1, of one of {', '.join(STEPS)}"
                )
        self.shutdown()
        self._parallelism |= parallelism

    def shutdown(self) -> None:
        """End the threads; the next batch starts new ones."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.shutdown()

    def get_micro_batch_idx(self) -> int | None:
        """Return which piece of its batch the calling thread works on, None outside of a step."""
        index: int | None = getattr(self._current, "index", None)
        return index

    def handle(self, data: Sequence[Any]) -> list[Any]:
        """Return the answers for `data`, in order."""
        starts = range(0, len(data), self.micro_batch_size)
        pieces = [data[start : start + self.micro_batch_size] for start in starts]
        answers: list[Future[list[Any]]] = [Future() for _ in pieces]
        for index, piece in enumerate(pieces):
            self._submit(0, index, piece, answers[index])
        return [answer for answered in answers for answer in answered.result()]

    def _submit(self, number: int, index: int, value: Any, answer: Future[Any]) -> None:
        step = STEPS[number]
        pool = self._pools.get(step)
        if pool is None:
            threads = self._parallelism.get(step, 1)
            pool = ThreadPoolExecutor(threads, thread_name_prefix=f"micro-batching-{step}")
            pool = self._pools.setdefault(step, pool)
        pool.submit(self._run, number, index, value, answer)

    def _run(self, number: int, index: int, value: Any, answer: Future[Any]) -> None:
        self._current.index = index
        try:
            result = getattr(self.handler, STEPS[number])(value)
            if number + 1 < len(STEPS):
                self._submit(number + 1, index, result, answer)
            else:
                answer.set_result(result)
        except BaseException as error:  # noqa: BLE001 - raised again where the batch is waited for
            answer.set_exception(error)
        finally:
            self._current.index = None

    def __call__(self, data: Sequence[Any], context: Any) -> Any:
        """Answer one batch as `BaseHandler.handle` does, predictions in pieces."""
        started = time.perf_counter()
        handler = self.handler
        handler.context = context
        if profiling.is_enabled():
            output, _ = handler._infer_with_profiler(data=data)  # noqa: SLF001 - BaseHandler's own
        elif handler._is_describe():  # noqa: SLF001
            output = [handler.describe_handle()]
        elif handler._is_explain():  # noqa: SLF001
            output = handler.explain_handle(handler.preprocess(data), data)
        else:
            output = self.handle(data)
        elapsed = round((time.perf_counter() - started) * 1000, 2)
        context.metrics.add_time("HandlerTime", elapsed, None, "ms")
        return output
