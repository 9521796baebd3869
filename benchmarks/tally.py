"""How many batches of which size a handler was called with, counted by the handler itself.

`apps/works.py` counts them in a file of numbers, so that they can be read while the server runs,
whoever's server it is.
"""

from __future__ import annotations

import array
import random
from itertools import chain, repeat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TALLY = "BENCHMARK_TALLY"
"""Environment variable: the directory of the files, one for each task."""


def read_sizes(path: Path) -> dict[int, int]:
    """Return `{size: batches}` as counted so far; nothing if nobody counts there."""
    if not path.exists():
        return {}
    counts = array.array("Q", path.read_bytes())
    return {size: count for size, count in enumerate(counts) if count}


def sizes_between(before: Mapping[int, int], after: Mapping[int, int]) -> dict[int, int]:
    """Return what was counted from `before` to `after`."""
    grown = {size: count - before.get(size, 0) for size, count in after.items()}
    return {size: count for size, count in grown.items() if count}


def mean_size(sizes: Mapping[int, int]) -> float:
    """Return the mean size of a batch, 0 if there was none."""
    batches = sum(sizes.values())
    return sum(size * count for size, count in sizes.items()) / batches if batches else 0.0


def replay(sizes: Mapping[int, int], length: int = 512) -> list[int]:
    """Return about `length` sizes, each as often as its share of `sizes`, in a fixed disorder.

    Raises:
        ValueError: `sizes` is empty.
    """
    batches = sum(sizes.values())
    if not batches:
        raise ValueError("no batch was counted, so that none can be replayed")
    shares = ((size, round(count * length / batches)) for size, count in sorted(sizes.items()))
    most = max(sizes, key=lambda size: sizes[size])
    order = list(chain.from_iterable(repeat(*share) for share in shares)) or [most]
    random.Random(0).shuffle(order)
    return order
