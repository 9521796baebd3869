"""When one worker more is wanted, and when one can be spared: no clock, no process in here.

Time is an argument, in seconds of any monotonic clock. More is wanted when the queue *stands*: when
requests wait longer than they should not for a moment, but for as long as a worker would have to
load. Who waits so long before he pays loses at most as much again as he would have by knowing the
future. One is spared when the others could have done its work, the busiest moments included and
with something to spare on the average: between what makes workers more and what makes them fewer
lies so much that no steady load does both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hatch_mar.archive.modelconfig import ModelConfig

COMFORT = 0.7
"""How busy, on the average, those who stay may be after one has left."""
REFUSAL_SECONDS = 1.0
"""For how long a refused request counts as one that waits too long."""
RETRY_SECONDS = 10.0
"""After how long it is worth asking again whether there is room for a worker."""
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 900.0
"""Seconds without a new try after a worker that could not load; twice as many each time."""
_MOST_CAUTION = 16
_SMOOTHING = 0.25
"""The mean wait is one over so much of the time for which need has to last."""


class Pace(NamedTuple):
    """How quickly workers follow the load: the author's keys, in seconds."""

    wait: float
    """How long a request may wait for a worker before one more is wanted."""
    up_after: float
    """For how long that has to last."""
    down_after: float
    """For how long a worker has to be more than is needed before it leaves."""

    @classmethod
    def of(cls, config: ModelConfig) -> Pace:
        """Read the keys of a model-config.yaml."""
        return cls(
            wait=config.scale_up_wait_msec / 1000,
            up_after=config.scale_up_after_msec / 1000,
            down_after=config.scale_down_after_msec / 1000,
        )


class Sight(NamedTuple):
    """What can be seen of a model at one moment."""

    workers: int
    """Those who answer."""
    coming: int
    """Those who load the model, or are about to."""
    minimum: int
    maximum: int
    wait: float
    """Seconds that the oldest request has waited that one more worker would begin."""
    occupied: float
    """How many workers' worth of work they are at."""
    accepted: int
    """Requests since the beginning."""
    refused: int
    """Those of them for which there was no room."""
    backlog: float
    """Seconds that those who answer will need for what waits."""
    load_seconds: float
    """How long a worker takes to load the model."""


class Wish(NamedTuple):
    """One worker more, or one less."""

    step: int
    reason: str


class Policy:
    """What is remembered of one model between two looks at it."""

    def __init__(self, pace: Pace) -> None:
        """Begin without a past."""
        self.pace = pace
        self.wait = 0.0
        """The wait of late, a running mean; seconds."""
        self._busy = 0.0
        """How many workers were busy of late, a running mean."""
        self._seen = -math.inf
        self._refused = 0
        self._refused_at = -math.inf
        self._need_since: float | None = None
        self._not_before = -math.inf
        self._pause = FIRST_PAUSE
        self._spare = _Spare()
        self._shrunk_at = -math.inf
        self._caution = 1

    @property
    def needs(self) -> bool:
        """Whether requests wait longer than they should."""
        return self._need_since is not None

    def look(self, now: float, sight: Sight) -> Wish | None:
        """Say whether there should be one worker more or less, after one more look."""
        elapsed = max(now - self._seen, 0.0)
        self._seen = now
        if sight.refused > self._refused:
            self._refused_at = now
        self._refused = sight.refused
        weight = -math.expm1(-elapsed / (_SMOOTHING * self.pace.up_after))
        self.wait += weight * (sight.wait - self.wait)
        self._busy += weight * (sight.occupied - self._busy)
        if sight.coming or not sight.workers:
            self._forget()
            return None
        refused = now - self._refused_at < REFUSAL_SECONDS
        if self.wait > self.pace.wait or refused:
            self._spare.forget()
            return self._wish_more(now, sight, refused=refused)
        self._need_since = None
        return self._wish_less(now, elapsed, sight)

    def note_more(self, now: float) -> None:
        """Hear that one more worker was started; if one has just been spared, that was too soon."""
        soon = now - self._shrunk_at < 2 * self._caution * self.pace.down_after
        self._caution = min(2 * self._caution, _MOST_CAUTION) if soon else 1
        self._forget()

    def note_less(self, now: float) -> None:
        """Hear that a worker was told to leave."""
        self._shrunk_at = now
        self._forget()

    def note_refusal(self, now: float) -> None:
        """Hear that there is no room for one more worker now."""
        self._not_before = now + RETRY_SECONDS

    def note_loaded(self) -> None:
        """Hear that a new worker has loaded the model."""
        self._pause = FIRST_PAUSE

    def note_failure(self, now: float) -> float:
        """Hear that a new worker could not load it; return for how many seconds none is started."""
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        self._not_before = now + pause
        return pause

    def may_grow(self, now: float) -> bool:
        """Whether it is time for a new try, after one that failed."""
        return now >= self._not_before

    def _forget(self) -> None:
        self._need_since = None
        self._spare.forget()

    def _wish_more(self, now: float, sight: Sight, *, refused: bool) -> Wish | None:
        if self._need_since is None:
            self._need_since = now
        lasted = now - self._need_since
        # What waits already will be there when the worker is: no need to see whether it lasts.
        worth = sight.backlog > sight.load_seconds
        patience = self.pace.up_after if worth else max(self.pace.up_after, sight.load_seconds)
        if lasted < patience or sight.workers >= sight.maximum or not self.may_grow(now):
            return None
        said = f"requests have waited {_milliseconds(self.wait)} for {lasted:.1f} s"
        return Wish(1, f"requests were refused for {lasted:.1f} s" if refused else said)

    def _wish_less(self, now: float, elapsed: float, sight: Sight) -> Wish | None:
        spare = self._spare
        if spare.since is None:
            spare.begin(now, sight.accepted)
            return None
        spare.work += elapsed * sight.occupied
        spare.peak = max(spare.peak, self._busy)
        lasted = now - spare.since
        if lasted < self._caution * self.pace.down_after:
            return None
        busy, peak, quiet = spare.work / lasted, spare.peak, sight.accepted == spare.accepted
        spare.begin(now, sight.accepted)
        others = sight.workers - 1
        fits = quiet if others == 0 else busy <= COMFORT * others and peak <= others
        if not fits or sight.workers <= sight.minimum:
            return None
        work = f"{busy:.1f} of {sight.workers} workers were busy" if busy else "nobody was busy"
        return Wish(-1, f"{work} for {lasted:.1f} s")


class _Spare:
    """The time since nobody has waited too long."""

    __slots__ = ("accepted", "peak", "since", "work")

    def __init__(self) -> None:
        self.since: float | None = None
        self.work = 0.0
        """Worker seconds."""
        self.peak = 0.0
        """The most workers that were busy, but for moments."""
        self.accepted = 0

    def begin(self, now: float, accepted: int) -> None:
        self.since, self.accepted = now, accepted
        self.work = self.peak = 0.0

    def forget(self) -> None:
        self.since = None


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
