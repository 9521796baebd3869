"""What a batch costs: a straight line, `fixed + per_item * size`, through the latest batches.

The line is fitted twice: through the medians of batches of about one size, which a few odd batches
(the first one, one that met a garbage collection) cannot move, and then through every batch that
is not far from the first line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isinf, sqrt
from statistics import fmean, median
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Source = Literal["measured", "remembered", "given"]
"""Whence a cost is: from these batches; from earlier ones of other sizes; from somebody else."""

KNEE = 0.9
"""The share of the attainable throughput that is worth a larger batch."""
FEWEST = 16
"""With fewer batches nothing is said about their cost."""
_FEWEST_ALIKE = 3
"""With fewer batches of about one size their median is no median."""
_FAR = 6.0
"""So many times the median deviation from the line is an odd batch."""
_UNSURE = 0.1
"""A slope is unknown if what it may be wrong by is more than this share of a batch's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a batch costs, in seconds."""

    fixed: float
    per_item: float

    def of(self, size: int) -> float:
        """Return the seconds that a batch of `size` takes."""
        return self.fixed + self.per_item * size

    def capacity(self, size: int) -> float:
        """Return how many requests one worker can answer in a second, in batches of `size`."""
        seconds = self.of(size)
        return size / seconds if seconds > 0 else inf

    def efficiency(self, size: int) -> float:
        """Return which share of what batches without end would attain those of `size` do."""
        seconds = self.of(size)
        return self.per_item * size / seconds if seconds > 0 else 1.0

    def knee(self, share: float = KNEE) -> float:
        """Return the size that attains `share` of what batches without end would.

        `size / (per_item * size + fixed) = share / per_item` gives `share / (1 - share) * fixed /
        per_item`: nine times their ratio for 90 %. Infinity where an item costs nothing.
        """
        return share / (1 - share) * self.fixed / self.per_item if self.per_item > 0 else inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What is known of a cost, and how well."""

    batches: int
    """How many it is from."""
    smallest: int = 0
    largest: int = 0
    """The sizes of the smallest and the largest of them."""
    typical: float = 0.0
    """Seconds: the median batch, whatever its size; 0 where there is none."""
    cost: Cost | None = None
    """None where the batches do not tell."""
    source: Source = "measured"
    r_squared: float | None = None
    """Which share of the variance of batch times the line explains; None if it is not of these."""
    unknown: str = ""
    """Why there is no cost of these batches, for a person."""

    def seconds(self, size: int) -> float:
        """Return the best guess of what a batch of `size` takes; 0 where nothing is known."""
        return self.typical if self.cost is None else self.cost.of(size)


class _Line(NamedTuple):
    fixed: float
    per_item: float
    error: float
    """Standard error of the slope; infinity where the points are of one size."""
    r_squared: float


def fit_cost(
    points: Sequence[tuple[int, float]],
    known: Cost | None = None,
    source: Source = "remembered",
) -> Fit:
    """Fit the line through (size, seconds) of batches.

    Where they do not tell how a batch's time depends on its size, `known`, which is from `source`,
    does: in the proportion that makes it right for the sizes that there are.
    """
    if not points:
        return Fit(batches=0, cost=known, source=source, unknown="no batch was answered yet")
    sizes = [size for size, _ in points]
    typical = median(seconds for _, seconds in points)
    line, unknown = _find_line(points)
    seen = Fit(
        batches=len(points),
        smallest=min(sizes),
        largest=max(sizes),
        typical=typical,
        unknown=unknown,
    )
    if line is not None:
        cost = Cost(fixed=line.fixed, per_item=line.per_item)
        return replace(seen, cost=cost, r_squared=line.r_squared)
    if known is not None and (expected := median(known.of(size) for size in sizes)) > 0:
        scale = typical / expected
        known = Cost(fixed=known.fixed * scale, per_item=known.per_item * scale)
    return replace(seen, cost=known, source=source)


def _find_line(points: Sequence[tuple[int, float]]) -> tuple[_Line | None, str]:
    """Return the line, or None and why there is none."""
    sizes = {size for size, _ in points}
    if len(points) < FEWEST:
        return None, f"{len(points)} batches are too few to tell; it takes {FEWEST}"
    if len(sizes) == 1:
        return None, f"all of the latest {len(points)} batches were of size {sizes.pop()}"
    groups = _group(points)
    if len(groups) == 1:
        return None, "the latest batches were all of about one size"
    rough = _positive([*_medians(groups)])
    near = _drop_odd(points, rough)
    line = _positive([(size, seconds, 1.0) for size, seconds in near])
    middle = fmean(size for size, _ in near)
    if isinf(line.error) or line.error * middle > _UNSURE * fmean(each for _, each in near):
        return None, "the latest batches differ more in time than their sizes explain"
    return line, ""


def _group(points: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Put batches of about one size together: 1, 2, 3 to 4, 5 to 8, ...; leave out lone ones."""
    groups: dict[int, list[tuple[int, float]]] = {}
    for point in points:
        groups.setdefault((point[0] - 1).bit_length(), []).append(point)
    large = [group for group in groups.values() if len(group) >= _FEWEST_ALIKE]
    return large or [list(points)]


def _medians(
    groups: Iterable[Sequence[tuple[int, float]]],
) -> Iterable[tuple[float, float, float]]:
    for group in groups:
        yield fmean(size for size, _ in group), median(each for _, each in group), len(group)


def _drop_odd(points: Sequence[tuple[int, float]], line: _Line) -> list[tuple[int, float]]:
    """Return the points that are not much farther from `line` than most."""
    deviations = [abs(seconds - line.fixed - line.per_item * size) for size, seconds in points]
    limit = _FAR * median(deviations)
    return [
        point for point, deviation in zip(points, deviations, strict=True) if deviation <= limit
    ]


def _positive(points: Sequence[tuple[float, float, float]]) -> _Line:
    """Fit a line that costs nothing less than nothing, through (size, seconds, weight)."""
    line = _least_squares(points)
    if line.per_item < 0:
        mean = _mean([(seconds, weight) for _, seconds, weight in points])
        return line._replace(fixed=mean, per_item=0.0, r_squared=0.0)
    if line.fixed < 0:
        product = sum(weight * size * seconds for size, seconds, weight in points)
        square = sum(weight * size * size for size, _, weight in points)
        return line._replace(fixed=0.0, per_item=product / square)
    return line


def _least_squares(points: Sequence[tuple[float, float, float]]) -> _Line:
    """Fit a line through (size, seconds, weight)."""
    total = sum(weight for _, _, weight in points)
    middle = _mean([(size, weight) for size, _, weight in points])
    mean = _mean([(seconds, weight) for _, seconds, weight in points])
    spread = sum(weight * (size - middle) ** 2 for size, _, weight in points)
    if not spread:
        return _Line(mean, 0.0, inf, 0.0)
    slope = sum(weight * (size - middle) * (each - mean) for size, each, weight in points) / spread
    fixed = mean - slope * middle
    residual = sum(weight * (each - fixed - slope * size) ** 2 for size, each, weight in points)
    variance = sum(weight * (each - mean) ** 2 for _, each, weight in points)
    error = sqrt(residual / max(total - 2, 1) / spread)
    return _Line(fixed, slope, error, 1 - residual / variance if variance else 1.0)


def _mean(values: Sequence[tuple[float, float]]) -> float:
    return sum(value * weight for value, weight in values) / sum(weight for _, weight in values)
