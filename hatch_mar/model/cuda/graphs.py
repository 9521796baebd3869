"""CUDA graphs: the model's kernels for one bucket, launched in one piece.

Small models spend their time on launching. A graph is captured once per bucket, with the first
batch that comes (before the worker is ready, where there is a golden example), and trusted only if
it gives what the model itself gives. Else the bucket runs without a graph, and says why.
"""

# ruff: noqa: ANN401 - batches and outputs are nested tensors

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from hatch_mar.model.cuda.buckets import change_tensors, cut, fill, tensors_in
from hatch_mar.model.tracebacks import summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from hatch_mar.model.cuda.layer import Graph, Layer

WARM_UPS = 3
"""Runs before a capture: libraries choose their algorithms, and compilers compile."""
REPLAYS = 2
"""Replays that are checked: a model that remembers the last batch passes the first."""

logger = logging.getLogger("hatch_mar.model")


class UnfitError(Exception):
    """The graph is not the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A graph and where it reads."""

    shape: Hashable
    """`Form.shape` of the batches it takes."""
    inputs: Any
    graph: Graph


class Graphs:
    """One graph per bucket, as far as that works."""

    def __init__(self, layer: Layer, run: Callable[[Any], Any], *, tolerance: float) -> None:
        """Capture `run`, the model, on `layer`; its inputs are laid out as `run` wants them.

        A replay may differ from `run` by `tolerance` times the largest value of the output.
        """
        self._layer = layer
        self._run = run
        self._tolerance = tolerance
        self._captured: dict[int, Captured] = {}
        self._copied = layer.event()
        """Behind the last output that was copied: until then no graph may run, on any stream."""
        self.refused: dict[int, str] = {}
        """Why a bucket has no graph."""

    @property
    def captured(self) -> list[int]:
        """The buckets that have a graph."""
        return sorted(self._captured)

    def has(self, bucket: int, shape: Hashable) -> bool:
        """Tell whether there is a graph for batches of that length and shape."""
        captured = self._captured.get(bucket)
        return captured is not None and captured.shape == shape

    def is_open(self, bucket: int) -> bool:
        """Tell whether nothing has been captured for `bucket` yet, or refused."""
        return bucket not in self._captured and bucket not in self.refused

    def replay(self, bucket: int, batch: Any, length: int) -> Any:
        """Return the output for the `length` rows of `batch`: a copy, which no replay changes."""
        captured = self._captured[bucket]
        stream = self._layer.current()
        self._copied.wait(stream)
        fill(captured.inputs, batch)
        captured.graph.replay()
        output = change_tensors(cut(captured.graph.output, bucket, length), torch.clone)
        self._copied.record(stream)
        return output

    def capture(self, bucket: int, shape: Hashable, batch: Any) -> None:
        """Capture the model for batches like `batch`, which is padded; wait for all streams.

        Raises:
            RuntimeError: the device has failed.
        """
        try:
            self._captured[bucket] = self._record(shape, batch)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; the batch runs without
            reason = str(error) if isinstance(error, UnfitError) else summarise(_origin(error))
        else:
            logger.info("cuda.graphs: batches of %d run as a graph", bucket)
            return
        self._layer.synchronize()
        self.refused[bucket] = reason
        logger.warning("cuda.graphs: batches of %d run without a graph: %s", bucket, reason)
        # The device is well. Before 2.13, torch takes a capture that failed for one under way, and
        # its memory for what must not be given back.
        with suppress(RuntimeError):
            self._layer.empty_cache()

    def _record(self, shape: Hashable, batch: Any) -> Captured:
        inputs = change_tensors(batch, torch.clone)
        run = partial(self._run, inputs)
        self._layer.synchronize()  # the inputs are there, and nobody else is at work
        with self._layer.on(self._layer.stream()):
            expected = [run() for _ in range(WARM_UPS)][-1]
        self._layer.synchronize()
        graph = self._layer.capture(run)
        for _ in range(REPLAYS):
            graph.replay()
            check_close(expected, graph.output, self._tolerance)
        self._copied.record(self._layer.current())
        return Captured(shape=shape, inputs=inputs, graph=graph)


def check_close(expected: Any, got: Any, tolerance: float) -> None:
    """Compare two outputs, tensor by tensor.

    Raises:
        UnfitError: they differ by more than `tolerance` times the largest value expected.
    """
    pairs = list(zip(tensors_in(expected), tensors_in(got), strict=True))
    for wanted, found in pairs:
        if wanted.dtype != found.dtype or wanted.shape != found.shape:
            raise UnfitError(f"a replay gives {found.dtype} {list(found.shape)}")
        if not wanted.is_floating_point():
            if not torch.equal(wanted, found):
                raise UnfitError("a replay gives another answer")
            continue
        finite = wanted[wanted.isfinite()]
        largest = finite.abs().max().item() if finite.numel() else 0.0
        bound = tolerance * largest
        if not torch.allclose(wanted, found, rtol=0.0, atol=bound, equal_nan=True):
            off = (wanted - found).abs().max().item()
            raise UnfitError(f"a replay gives another answer, off by {off:.2g}")


def _origin(error: BaseException) -> BaseException:
    """Return what went wrong first: ending a capture that failed fails, too."""
    while error.__context__ is not None:
        error.__traceback__ = None  # its frames hold what was allocated
        error = error.__context__
    error.__traceback__ = None
    return error
