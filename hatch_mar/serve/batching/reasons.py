"""Figures in words: why batches have the size that they have, and what would be better."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isinf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatch_mar.serve.batching.picture import Picture

_WORTH_A_WORD = 0.05
"""What concerns a smaller share of requests or batches is not worth a sentence."""
_OFTEN = 0.2
_BUSY = 0.7
"""At this utilisation a worker has no time left for single requests."""
_MUCH = 1.25
_FURTHEST = 8
"""Costs are believed for batches up to so many times the size that was seen."""
_FIRST_TRY = 8
"""A batch size that tells whether batches pay, where there were none."""
_SINGLE = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A key of model-config.yaml that had better another value."""

    key: str
    value: int | None
    """None: left out."""
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        return {"key": self.key, "value": self.value, "why": self.why}


def explain_sizes(picture: Picture) -> Iterator[str]:
    """Yield why batches have the size that they have, a sentence each."""
    limits = picture.limits
    if not picture.batches:
        yield "no batch was answered in the last ten minutes: there is nothing to explain"
        return
    if limits.batch_size == 1:
        yield "batchSize=1: every request is a batch of its own"
    if picture.held >= _WORTH_A_WORD:
        yield (
            f"maxBatchDelay={limits.max_delay * 1000:g} held {_percent(picture.held)} of requests "
            f"back for {_ms(picture.held_for)} on average although a worker was idle"
        )
    at_once = picture.idle - picture.held
    if at_once >= _WORTH_A_WORD:
        alone = picture.idle_size < _SINGLE
        how = "they went alone" if alone else f"in batches of {picture.idle_size:.1f} on average"
        at = "" if alone else " they were taken at once,"
        yield (f"a worker was idle when {_percent(at_once)} of requests came:{at} {how}")
    waited = 1 - picture.idle
    if waited >= _WORTH_A_WORD:
        together = "one by one" if limits.batch_size == 1 else "together"
        yield (
            f"{_percent(waited)} of requests came while the workers were busy, and left "
            f"{together} as soon as one was free"
        )
    if limits.cap:
        yield f"memory does not suffice for more than {limits.cap} at once, for now"
    if limits.batch_size > 1 and picture.full >= _WORTH_A_WORD:
        yield f"{_percent(picture.full)} of batches were full: batchSize={limits.batch_size}"
    yield from _judge_size(picture)


def _judge_size(picture: Picture) -> Iterator[str]:
    """Say what batches of this size, and of another, make of the workers."""
    limits, cost = picture.limits, picture.fit.cost
    if cost is None:
        yield f"what a batch costs is not known: {picture.fit.unknown}"
        return
    size, knee = limits.batch_size, cost.knee()
    if isinf(knee):
        yield "a larger batch takes no longer than a small one, as far as was seen"
    elif size > 2 * knee and picture.full >= _OFTEN:
        yield (
            f"batchSize={size} is beyond the knee: {ceil(knee)} has 90 % of the attainable "
            "throughput already, and a shorter wait"
        )
    elif picture.full >= _WORTH_A_WORD:
        yield (
            f"batches of {size} have {_percent(cost.efficiency(size))} of the attainable "
            f"throughput; it takes batches of {max(1, ceil(knee))} for 90 %"
        )


def explain_latency(picture: Picture) -> Iterator[str]:
    """Yield what is odd about how long requests take."""
    if picture.predicted is None:
        if picture.batches and picture.fit.cost is not None:
            yield f"no latency is predicted: {picture.unpredicted}"
    elif picture.latency is not None and picture.latency.mean > _MUCH * picture.predicted:
        yield (
            f"requests take {_ms(picture.latency.mean)} on average, and should take at most "
            f"{_ms(picture.predicted)}: they come in bursts, the load has changed meanwhile, "
            "batches of one size take unlike times, or this machine has other work"
        )


def suggest(picture: Picture) -> Iterator[Suggestion]:
    """Yield what would be worth another value, as far as that is known."""
    limits, cost = picture.limits, picture.fit.cost
    if picture.held >= _WORTH_A_WORD:
        yield Suggestion(
            key="maxBatchDelay",
            value=None,
            why="an idle worker that waits for company makes requests wait and answers no more of "
            "them; it pays only where others need the device meanwhile",
        )
    if not limits.whole:
        return
    if cost is None:
        if picture.full >= _OFTEN and picture.utilization >= _BUSY and not limits.cap:
            yield Suggestion(
                key="batchSize",
                value=_FIRST_TRY if limits.batch_size == 1 else 2 * limits.batch_size,
                why=f"the workers are busy {_percent(picture.utilization)} of the time, and only "
                "batches of several sizes tell whether a batch is cheaper than its requests",
            )
        return
    size = limits.batch_size
    if picture.full >= _OFTEN and cost.knee() > _MUCH * size and not limits.cap:
        better = min(_FURTHEST * picture.fit.largest, cost.knee())
        better = ceil(better)
        gain = cost.capacity(better) / cost.capacity(size)
        yield Suggestion(
            key="batchSize",
            value=better,
            why=f"{_percent(cost.efficiency(better))} of the attainable throughput instead of "
            f"{_percent(cost.efficiency(size))}: {gain:.1f} times as many requests, of which a "
            f"batch would take {_ms(cost.of(better))} instead of {_ms(cost.of(size))}",
        )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _ms(seconds: float) -> str:
    """Return three digits of a time, and more of one of seconds."""
    milliseconds = 1000 * seconds
    return f"{round(milliseconds, 1 if milliseconds < 99.95 else 0):g} ms"  # noqa: PLR2004
