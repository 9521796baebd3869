"""How long requests will wait: the next one, and all of them on average.

No clock in here: time is an argument, in seconds of the clock of the batches that were noted.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from hatch_mar.serve.batching.costs import Cost, Fit, Source, fit_cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.serve.batching.jobs import Seat
    from hatch_mar.serve.batching.record import BatchRecord

_REFIT_BATCHES = 32
_REFIT_SECONDS = 0.2
"""A fit costs about a millisecond: it is made again after so many batches, and not sooner."""


class Forecast:
    """What the batches of a model version will cost, as far as those that were tell."""

    def __init__(self, record: BatchRecord, known: Cost | None = None) -> None:
        """Learn from `record`; `known` is what somebody measured before, if anybody did.

        `hatch-mar tune` stores such costs: whoever makes the pool hands them over here.
        """
        self._record = record
        self._known = known
        self._source: Source = "given"
        self._fit = fit_cost([], known, "given")
        self._fitted = 0
        self._fitted_at = -inf

    def fit(self, now: float) -> Fit:
        """Return what is known by now; it may be 32 batches old, and a fifth of a second."""
        count = self._record.count
        if count > self._fitted and (
            self._fitted < _REFIT_BATCHES
            or (count >= self._fitted + _REFIT_BATCHES and now >= self._fitted_at + _REFIT_SECONDS)
        ):
            return self.refit(now)
        return self._fit

    def refit(self, now: float) -> Fit:
        """Return what is known by now, with the very last batch."""
        fit = fit_cost(self._record.times(), self._known, self._source)
        if fit.source == "measured" and fit.cost is not None:
            self._known, self._source = fit.cost, "remembered"
        self._fit, self._fitted, self._fitted_at = fit, self._record.count, now
        return fit

    @property
    def drift(self) -> float:
        """How many times longer than that requests take, at least once."""
        return max(1.0, self._record.drift)

    def wait(self, now: float, seats: Sequence[Seat], pending: int, batch_size: int) -> float:
        """Return the seconds until a request that comes now would be begun.

        `pending` requests come before it. Workers finish what they are at, and whoever is free
        first takes the next full batch. 0 where somebody idle will take it, or nothing is known.
        """
        fit = self.fit(now)
        rests = []
        for seat in seats:
            held = min(len(seat.held), batch_size)
            rests.append(max(0.0, seat.since + fit.seconds(held) - now) if held else 0.0)
        if not rests:
            return 0.0
        rounds, turn = divmod(pending // batch_size, len(rests))
        rests.sort()
        return rests[turn] + rounds * fit.seconds(batch_size)


def bound_latency(rate: float, cost: Cost, batch_size: int) -> float:
    """Return an upper bound of the mean latency in seconds, at `rate` requests a second.

    For one worker that takes whatever waits, at most `batch_size`, as soon as it is free, and
    requests that arrive independently of each other (Poisson). With batches of any size this is
    the bound of Y. Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching:
    a closed-form characterization" (Performance Evaluation 147, 2021; arXiv 1912.06322). Where
    `batch_size` limits, what a full batch leaves behind is added: `u * t / (2 * (B - rate * t))`,
    with the time t of a full batch and its load u = rate * t / B, which is Pollaczek and
    Khinchine's wait for batches of one, and was found by simulation to be above the truth for
    others (`tests/serve/test_forecast.py`). Infinity where the requests are too many.
    """
    full = cost.of(batch_size)
    load = rate * full / batch_size
    if load >= 1:
        return inf
    left_behind = load * full / (2 * (batch_size - rate * full))
    if batch_size == 1:
        return full + left_behind
    return _bound_unlimited(rate, cost.per_item, cost.fixed) + left_behind


def _bound_unlimited(rate: float, per_item: float, fixed: float) -> float:
    load = rate * per_item
    light = (per_item + fixed) / (2 * (1 - load))
    light *= 1 + 2 * rate * fixed + (1 - rate * fixed) / (1 + load)
    heavy = 1.5 * fixed / (1 - load) + per_item / 2 * (load + 2) / (1 - load * load)
    return min(light, heavy)
