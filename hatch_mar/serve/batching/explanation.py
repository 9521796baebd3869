"""The document that `GET /models/{model}/batching` answers with."""

from __future__ import annotations

from math import ceil, isinf
from typing import TYPE_CHECKING, Any

from hatch_mar.serve.batching.costs import KNEE
from hatch_mar.serve.batching.picture import Limits, take_picture
from hatch_mar.serve.batching.reasons import explain_latency, explain_sizes, suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.serve.batching.batcher import Batcher
    from hatch_mar.serve.batching.costs import Cost, Fit
    from hatch_mar.serve.batching.forecast import Forecast
    from hatch_mar.serve.batching.picture import Times
    from hatch_mar.serve.batching.record import BatchRecord


def explain(
    batcher: Batcher, record: BatchRecord, forecast: Forecast, now: float
) -> dict[str, Any]:
    """Return what was seen of a model version's batches, what follows, and why; times in ms.

    What is not known is null, and a sentence says why.
    """
    limits = Limits(
        batch_size=batcher.batch_size,
        workers=len(batcher.seats),
        capacity=batcher.capacity,
        max_delay=batcher.max_delay,
        max_wait=batcher.max_wait,
        cap=batcher.cap,
        whole=batcher.predictable,
    )
    picture = take_picture(record.latest(now), forecast.refit(now), limits)
    return {
        "limits": _list_limits(limits),
        "seen": {
            "batches": picture.batches,
            "requests": picture.requests,
            "seconds": _round(picture.seconds),
            "requestsPerSecond": _round(picture.rate),
            "utilization": _round(picture.utilization),
            "queueTime": _list_times(picture.queue),
            "computeTime": _list_times(picture.compute),
            "latency": _list_times(picture.latency),
        },
        "batchSizes": {str(size): count for size, count in sorted(record.sizes.items())},
        "cost": _list_cost(picture.fit),
        "throughput": _list_throughput(picture.fit.cost, limits),
        "predictedLatency": _milliseconds(picture.predicted),
        "predictedWait": _milliseconds(batcher.predict_wait(now) if limits.whole else None),
        "counts": count_all(batcher, record),
        "why": [
            *explain_sizes(picture),
            *explain_latency(picture),
            *_explain_counts(batcher),
        ],
        "suggestions": [suggestion.as_dict() for suggestion in suggest(picture)],
    }


def count_all(batcher: Batcher, record: BatchRecord) -> Mapping[str, int]:
    """Return what was counted since the start."""
    return {
        "batches": record.count,
        "failedBatches": record.failed,
        "halvedBatches": record.halved,
        "refusedQueueFull": batcher.refused_full,
        "refusedNoIdleWorker": batcher.refused_tickets,
        "refusedWait": batcher.refused_wait,
        "deadlinesMissed": record.late,
        "clientTimeouts": record.expired,
        "clientsGone": record.gone,
    }


def _list_limits(limits: Limits) -> dict[str, Any]:
    return {
        "batchSize": limits.batch_size,
        "maxBatchDelay": _milliseconds(limits.max_delay or None),
        "jobQueueSize": limits.capacity,
        "maxQueueDelay": _milliseconds(limits.max_wait or None),
        "workers": limits.workers,
    }


def _list_times(times: Times | None) -> dict[str, Any] | None:
    if times is None:
        return None
    return {name: _milliseconds(getattr(times, name)) for name in ("median", "p99", "mean")}


def _list_cost(fit: Fit) -> dict[str, Any]:
    cost = fit.cost
    return {
        "fixed": None if cost is None else _milliseconds(cost.fixed),
        "perItem": None if cost is None else _milliseconds(cost.per_item),
        "source": None if cost is None else fit.source,
        "rSquared": _round(fit.r_squared),
        "batches": fit.batches,
        "smallest": fit.smallest,
        "largest": fit.largest,
        "unknown": fit.unknown or None,
    }


def _list_throughput(cost: Cost | None, limits: Limits) -> dict[str, Any]:
    """Return requests per second of all workers, and the batch size that is worth having."""
    if cost is None:
        return dict.fromkeys(("capacity", "attainable", "efficiency", "knee"))
    workers = max(limits.workers, 1)
    knee = cost.knee(KNEE)
    attainable = workers / cost.per_item if cost.per_item else None
    return {
        "capacity": _round(workers * cost.capacity(limits.batch_size)),
        "attainable": _round(attainable),
        "efficiency": _round(cost.efficiency(limits.batch_size)) if attainable else None,
        "knee": None if isinf(knee) else max(1, ceil(knee)),
    }


def _explain_counts(batcher: Batcher) -> list[str]:
    """Say why requests were refused, since the start."""
    told = []
    if count := batcher.refused_full:
        told.append(f"{count} requests were refused: jobQueueSize={batcher.capacity} waited")
    if count := batcher.refused_wait:
        told.append(f"{count} requests were refused: they would have waited too long")
    return told


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else _round(seconds * 1000)


def _round(value: float | None) -> float | None:
    """Return four significant digits of `value`: more would be noise."""
    return None if value is None else float(f"{value:.4g}")
