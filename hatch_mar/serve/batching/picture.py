"""What the latest batches of a model version look like, in figures."""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf
from typing import TYPE_CHECKING

from hatch_mar.serve.batching.forecast import bound_latency
from hatch_mar.serve.batching.record import SeenBatch, arrival_rate, percentile, span_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hatch_mar.serve.batching.costs import Fit

_HELD_SECONDS = 0.001
_HELD_SHARE = 0.1
"""A batch that came to an idle worker was held back if it waited for more than a millisecond, and
for more than this share of `maxBatchDelay`: so long no frame takes."""
_MORE = 1.02
"""If so many times as many requests came as were answered, some were refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a model's config says about its batches; times in seconds."""

    batch_size: int
    workers: int
    """How many can answer now."""
    capacity: int
    """Requests that may wait."""
    max_delay: float = 0
    """0: an idle worker waits for nobody."""
    max_wait: float = 0
    """0: a request may be predicted to wait for any time."""
    cap: int = 0
    """What fits into a worker's memory at once, where that is less than `batch_size`; else 0."""
    whole: bool = True
    """Whether workers answer batch after batch: not so with sequences, nor where each request is
    answered when it is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long something takes, in seconds."""

    median: float
    p99: float
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What was seen lately. Shares are from 0 to 1; times are seconds."""

    limits: Limits
    fit: Fit
    batches: int = 0
    requests: int = 0
    seconds: float = 0
    """From the first arrival to the last answer."""
    rate: float | None = None
    """Requests that came per second, those that were refused too."""
    utilization: float = 0
    """Of the workers' time, the share in which they were at a batch."""
    queue: Times | None = None
    """Of a request, until its batch was begun."""
    compute: Times | None = None
    """Of a batch, in the handler."""
    latency: Times | None = None
    """Of a request, until its answer was here."""
    idle: float = 0
    """Requests whose worker had nothing to do when the first of their batch came."""
    idle_size: float = 0
    """How large the batches of those were on average."""
    full: float = 0
    """Batches that were as large as they may be."""
    held: float = 0
    """Requests that `maxBatchDelay` held back although their worker was idle."""
    held_for: float = 0
    """How long they waited on average."""
    predicted: float | None = None
    """What the mean latency should be at most."""
    unpredicted: str = ""
    """Why there is no prediction, for a person."""


def take_picture(batches: Sequence[SeenBatch], fit: Fit, limits: Limits) -> Picture:
    """Look at `batches`, the latest ones."""
    if not batches:
        return Picture(limits=limits, fit=fit, unpredicted="no batch was answered lately")
    requests = sum(batch.size for batch in batches)
    span = span_of(batches)
    idle = [batch for batch in batches if batch.came_to_idle]
    idle_requests = sum(batch.size for batch in idle)
    held = [batch for batch in idle if _was_held(batch, limits)]
    held_requests = sum(batch.size for batch in held)
    largest = limits.cap or limits.batch_size
    full = sum(batch.size >= largest for batch in batches)
    busy = sum(batch.seconds for batch in batches)
    predicted, unpredicted = _predict(batches, fit, limits)
    return Picture(
        limits=limits,
        fit=fit,
        batches=len(batches),
        requests=requests,
        seconds=span,
        rate=arrival_rate(batches),
        utilization=min(1.0, busy / (span * max(limits.workers, 1))) if span else 0.0,
        queue=_sum_up(point for batch in batches for point in batch.waits()),
        compute=_sum_up((batch.seconds, 1.0) for batch in batches),
        latency=_sum_up(point for batch in batches for point in batch.latencies()),
        idle=idle_requests / requests,
        idle_size=idle_requests / len(idle) if idle else 0.0,
        full=full / len(batches),
        held=held_requests / requests,
        held_for=_mean_wait(held),
        predicted=predicted,
        unpredicted=unpredicted,
    )


def _was_held(batch: SeenBatch, limits: Limits) -> bool:
    waited = batch.started - batch.first
    return limits.max_delay > 0 and waited > max(_HELD_SECONDS, _HELD_SHARE * limits.max_delay)


def _mean_wait(batches: Sequence[SeenBatch]) -> float:
    requests = sum(batch.size for batch in batches)
    return sum(batch.size * batch.mean_wait for batch in batches) / requests if requests else 0.0


def _sum_up(points: Iterable[tuple[float, float]]) -> Times:
    weighed = list(points)
    total = sum(weight for _, weight in weighed)
    return Times(
        median=percentile(weighed, 0.5),
        p99=percentile(weighed, 0.99),
        mean=sum(value * weight for value, weight in weighed) / total,
    )


def _predict(batches: Sequence[SeenBatch], fit: Fit, limits: Limits) -> tuple[float | None, str]:
    """Return the bound of the mean latency, or None and why there is none."""
    if reason := _unpredictable(fit, limits):
        return None, reason
    assert fit.cost is not None
    ordered = sorted(batches, key=lambda batch: batch.last)
    span = ordered[-1].last - ordered[0].last
    if span <= 0:
        return None, "too few batches were answered lately"
    answered = sum(batch.size for batch in ordered[1:])
    rate = answered / span / max(limits.workers, 1)
    bound = bound_latency(rate, fit.cost, limits.cap or limits.batch_size)
    if isinf(bound) or ordered[-1].number - ordered[0].number > _MORE * answered:
        return None, "as much comes as can be answered, or more: the queue decides"
    return bound, ""


def _unpredictable(fit: Fit, limits: Limits) -> str:
    """Return why such batches cannot be predicted; nothing if they can."""
    if not limits.whole:
        return "the workers do not answer batch after batch"
    if limits.max_delay:
        return "maxBatchDelay decides when batches leave"
    return f"what a batch costs is not known: {fit.unknown}" if fit.cost is None else ""
