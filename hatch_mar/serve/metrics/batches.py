"""What is published of batches, beyond TorchServe's metrics: costs, and requests not answered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hatch_mar.serve.metrics.store import MILLISECONDS, Family, Labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hatch_mar.serve.metrics.config import Kind
    from hatch_mar.serve.pool import Pool

_HELP = {
    "hatch_mar_batch_fixed_milliseconds": "What a batch takes whatever its size",
    "hatch_mar_batch_item_milliseconds": "What a batch takes for each request in it",
    "hatch_mar_requests_refused": "Requests that were not accepted, by reason",
    "hatch_mar_deadlines_missed": "Requests that were not answered by their X-Deadline-Ms",
    "hatch_mar_batches_halved": "Failed batches that were run again in halves",
}
_FIXED, _ITEM, _REFUSED, _MISSED, _HALVED = _HELP
_REASONS = {
    "queue_full": "refusedQueueFull",
    "no_idle_worker": "refusedNoIdleWorker",
    "wait": "refusedWait",
}


def collect_batches(pools: Iterable[Pool], hostname: str) -> Iterator[Family]:
    """Yield what is known of the batches of `pools`; what is not known, or zero, has no sample."""
    rows: dict[str, list[tuple[str, Labels, float]]] = {name: [] for name in _HELP}
    for pool in pools:
        name, version = pool.deployment.name, pool.deployment.version
        labels = (("model_name", name), ("model_version", version), ("hostname", hostname))
        cost = pool.forecast.fit(time.monotonic()).cost
        if cost is not None:
            rows[_FIXED].append(("", labels, round(cost.fixed * MILLISECONDS, 4)))
            rows[_ITEM].append(("", labels, round(cost.per_item * MILLISECONDS, 4)))
        counts = pool.count_batches()
        for reason, key in _REASONS.items():
            if counts[key]:
                row = (*labels[:2], ("reason", reason), labels[2])
                rows[_REFUSED].append(("", row, counts[key]))
        if counts["deadlinesMissed"]:
            rows[_MISSED].append(("", labels, counts["deadlinesMissed"]))
        if counts["halvedBatches"]:
            rows[_HALVED].append(("", labels, counts["halvedBatches"]))
    for metric, samples in rows.items():
        kind: Kind = "gauge" if metric in {_FIXED, _ITEM} else "counter"
        yield Family(metric, kind, _HELP[metric], samples)
