"""What was seen of one model version's batches, in memory that does not grow with their number.

Nothing is worked out when a batch is noted, for that is done for every batch; whoever wants to know
something reads the latest batches.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hatch_mar.serve.batching.jobs import Job, Seat

LATEST = 512
"""How many batches are remembered one by one."""
WINDOW = 600.0
"""Seconds after which a batch tells nothing about today's load any more."""
_SMOOTHING = 0.1
_WORST = 10.0
"""A prediction that is still worse by one is taken for so bad."""
_POINTS = 8
"""So many of a batch's requests stand for all of them, where each one's time is asked for."""


class SeenBatch(NamedTuple):
    """One batch that was answered. Times are seconds of one monotonic clock."""

    size: int
    first: float
    """When the oldest of its requests arrived."""
    last: float
    """When the newest one did."""
    number: int
    """Of the newest one: how many requests had come by then, refused ones too."""
    started: float
    seconds: float
    """What the handler took."""
    answered: float
    """When the answers were here."""
    free: float
    """When its worker had finished what it did before."""

    @property
    def came_to_idle(self) -> bool:
        """Whether its worker had nothing to do when the first of its requests arrived."""
        return self.first >= self.free

    def waits(self) -> Iterable[tuple[float, float]]:
        """Yield (seconds from arrival to the beginning, requests that waited about so long)."""
        return self._spread(self.started)

    def latencies(self) -> Iterable[tuple[float, float]]:
        """Yield (seconds from arrival to the answer, requests that it took about so long for)."""
        return self._spread(self.answered)

    @property
    def mean_wait(self) -> float:
        """Seconds for which its requests waited, on average."""
        return self.started - (self.first + self.last) / 2

    @property
    def mean_latency(self) -> float:
        """Seconds from arrival to the answer, on average."""
        return self.answered - (self.first + self.last) / 2

    def _spread(self, end: float) -> Iterable[tuple[float, float]]:
        """Take arrivals as evenly spread between the first and the last."""
        points = min(self.size, _POINTS)
        step = (self.last - self.first) / (points - 1) if points > 1 else 0.0
        for point in range(points):
            yield end - self.first - point * step, self.size / points


class BatchRecord:
    """The latest batches, and counts of all."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.sizes: Counter[int] = Counter()
        """How many batches of each size were answered, since the start."""
        self.count = 0
        """How many batches were answered, since the start; failed ones are counted apart."""
        self.failed = 0
        self.halved = 0
        """How often a worker ran a failed batch again in halves."""
        self.drift = 1.0
        """How many times longer than predicted requests take: a running mean of what was asked for.
        What batches cost is not all there is: the door may be busy, and the machine."""
        self.late = 0
        """Requests whose deadline had passed before their answer."""
        self.expired = 0
        """Requests that waited longer than `clientTimeoutInMills`."""
        self.gone = 0
        """Requests whose clients were gone before their answer."""
        self._latest: deque[tuple[int, float, float, int, float, float, float, float]] = deque(
            maxlen=LATEST
        )

    def note(self, seat: Seat, jobs: Sequence[Job], started: float, seconds: float) -> None:
        """Note that `seat` has answered `jobs` by `seat.since`; they are in order of arrival."""
        size = len(jobs)
        last = jobs[-1]
        self.count += 1
        self.sizes[size] += 1
        if last.expected:
            self.compare(last, seat.since)
        self._latest.append(
            (
                size,
                jobs[0].arrived,
                last.arrived,
                last.number,
                started,
                seconds,
                seat.since,
                seat.ended,
            )
        )
        seat.ended = started + seconds

    def compare(self, job: Job, now: float) -> None:
        """Learn from a job that was answered, or given up, now: it was predicted when it came."""
        if job.expected:
            ratio = min((now - job.arrived) / job.expected, _WORST)
            self.drift += _SMOOTHING * (ratio - self.drift)

    def times(self) -> list[tuple[int, float]]:
        """Return (size, seconds in the handler) of the latest batches, oldest first."""
        return [(row[0], row[5]) for row in self._latest]

    def latest(self, now: float) -> list[SeenBatch]:
        """Return the latest batches, oldest first, none of them older than `WINDOW`."""
        batches = (SeenBatch._make(row) for row in self._latest)
        return [batch for batch in batches if batch.answered > now - WINDOW]


def percentile(values: Iterable[tuple[float, float]], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the weight is; of (value, weight) pairs.

    Raises:
        ValueError: there are none.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    rest = share * sum(weight for _, weight in ordered)
    for value, weight in ordered:
        rest -= weight
        if rest <= 0:
            return value
    return ordered[-1][0]


def span_of(batches: Sequence[SeenBatch]) -> float:
    """Return the seconds from the first arrival to the last answer; 0 for no batches."""
    if not batches:
        return 0.0
    first = min(batch.first for batch in batches)
    return max(batch.answered for batch in batches) - first


def arrival_rate(batches: Sequence[SeenBatch]) -> float | None:
    """Return requests per second, those that were refused too; None where too few have come."""
    ordered = sorted((batch.number, batch.last) for batch in batches)
    if len(ordered) < 2 or ordered[-1][1] <= ordered[0][1]:  # noqa: PLR2004 - an interval has two ends
        return None
    return (ordered[-1][0] - ordered[0][0]) / (ordered[-1][1] - ordered[0][1])
