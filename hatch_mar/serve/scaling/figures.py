"""What of scaling is among the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.serve.metrics.store import OWN_PREFIX, Family
from hatch_mar.serve.scaling.autoscaler import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hatch_mar.serve.pool import Pool


def collect_scaling(pools: Sequence[Pool], hostname: str) -> Iterator[Family]:
    """Yield the workers that answer, and what was decided, of each model that follows its load."""
    elastic = [
        (
            (
                ("model_name", pool.deployment.name),
                ("model_version", pool.deployment.version),
                ("hostname", hostname),
            ),
            pool,
        )
        for pool in pools
        if pool.autoscaler.elastic
    ]
    yield Family(
        f"{OWN_PREFIX}workers",
        "gauge",
        "Workers that answer, of models whose number of workers follows the load",
        [("", labels, len(pool.workforce.serving)) for labels, pool in elastic],
    )
    yield Family(
        f"{OWN_PREFIX}scaling_decisions_total",
        "counter",
        "Workers started (up) and spared (down), and those that there was no room for or that "
        "could not load the model",
        [
            ("", (*labels, ("outcome", outcome)), pool.autoscaler.counts[outcome])
            for labels, pool in elastic
            for outcome in OUTCOMES
        ],
    )
