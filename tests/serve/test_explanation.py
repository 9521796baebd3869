"""Figures and sentences about batches: made up ones here, real ones in `test_explaining.py`."""

from __future__ import annotations

from typing import Any

import pytest

from hatch_mar.serve.batching.batcher import Batcher
from hatch_mar.serve.batching.costs import Cost
from hatch_mar.serve.batching.explanation import explain
from hatch_mar.serve.batching.forecast import Forecast
from hatch_mar.serve.batching.jobs import Job
from hatch_mar.serve.batching.open_batcher import OpenBatcher
from hatch_mar.serve.batching.record import WINDOW, BatchRecord, SeenBatch, percentile
from hatch_mar.serve.metrics.store import Tally

COST = Cost(fixed=0.02, per_item=0.001)


class Nobody:
    def cancel(self, job: Job) -> None:
        raise AssertionError(job)

    hold = release = cancel


class Story:
    """Batches that one worker answers, each as its author likes it."""

    def __init__(self, *, cost: Cost = COST, **limits: float) -> None:
        self.cost = cost
        self.record = BatchRecord()
        self.forecast = Forecast(self.record)
        limits = {"batch_size": 8, "capacity": 100, **limits}
        self.batcher = Batcher(**limits, forecast=self.forecast)  # type: ignore[arg-type]
        self.seat = self.batcher.join(0)
        self.now = 0.0
        self.number = 0

    def answer(self, size: int, *, wait: float, idle: float = 0.0) -> None:
        """Answer a batch whose requests waited so long, after the worker was idle so long."""
        self.now += idle
        started = max(self.now, self.seat.ended)
        jobs = []
        for _ in range(size):
            self.number += 1
            jobs.append(Job([b""], print, Nobody(), Tally(None), self.number, started - wait))
        seconds = self.cost.of(size)
        self.now = self.seat.since = started + seconds
        self.record.note(self.seat, jobs, started, seconds)

    def explain(self) -> dict[str, Any]:
        return explain(self.batcher, self.record, self.forecast, self.now)


def test_nothing_seen_is_nothing_known() -> None:
    found = Story().explain()
    assert found["why"] == [
        "no batch was answered in the last ten minutes: there is nothing to explain"
    ]
    assert found["seen"]["latency"] is None
    assert found["cost"]["fixed"] is None
    assert found["predictedLatency"] is None
    assert found["suggestions"] == []


def test_single_requests_to_an_idle_worker() -> None:
    story = Story()
    for _ in range(30):
        story.answer(1, wait=0.0001, idle=0.2)
    found = story.explain()
    assert found["why"] == [
        "a worker was idle when 100 % of requests came: they went alone",
        "what a batch costs is not known: all of the latest 30 batches were of size 1",
    ]
    assert found["batchSizes"] == {"1": 30}
    assert found["seen"]["utilization"] == pytest.approx(0.021 / 0.221, rel=0.05)
    assert found["seen"]["requestsPerSecond"] == pytest.approx(1 / 0.221, rel=0.01)
    assert found["seen"]["queueTime"] == {"median": 0.1, "p99": 0.1, "mean": 0.1}
    assert found["suggestions"] == []


def test_full_batches_have_a_better_size() -> None:
    story = Story()
    for size in (1, 2, 4) * 6:
        story.answer(size, wait=0.01)
    for _ in range(60):
        story.answer(8, wait=0.05)
    found = story.explain()
    assert found["cost"] == {
        "fixed": 20.0,
        "perItem": 1.0,
        "source": "measured",
        "rSquared": 1.0,
        "batches": 78,
        "smallest": 1,
        "largest": 8,
        "unknown": None,
    }
    assert found["throughput"] == {
        "capacity": 285.7,
        "attainable": 1000.0,
        "efficiency": 0.2857,
        "knee": 180,
    }
    assert "77 % of batches were full: batchSize=8" in found["why"]
    assert (
        "batches of 8 have 29 % of the attainable throughput; it takes batches of 180 for 90 %"
    ) in found["why"]
    (suggestion,) = found["suggestions"]
    assert (suggestion["key"], suggestion["value"]) == ("batchSize", 64)  # 8 times what was seen
    assert "2.7 times as many requests" in suggestion["why"]


def test_a_delay_that_only_delays() -> None:
    story = Story(max_delay=0.1)
    for _ in range(40):
        story.answer(1, wait=0.1, idle=0.3)
    for _ in range(20):
        story.answer(1, wait=0.0002, idle=0.3)
    found = story.explain()
    assert found["why"][0] == (
        "maxBatchDelay=100 held 67 % of requests back for 100 ms on average although a worker "
        "was idle"
    )
    (suggestion,) = found["suggestions"]
    assert (suggestion["key"], suggestion["value"]) == ("maxBatchDelay", None)
    assert found["predictedLatency"] is None


def test_a_busy_worker_and_a_batch_size_of_one() -> None:
    story = Story(batch_size=1)
    for _ in range(40):
        story.answer(1, wait=0.05)
    found = story.explain()
    assert found["why"][:2] == [
        "batchSize=1: every request is a batch of its own",
        (
            "100 % of requests came while the workers were busy, and left one by one as soon as "
            "one was free"
        ),
    ]
    (suggestion,) = found["suggestions"]
    assert (suggestion["key"], suggestion["value"]) == ("batchSize", 8)


def test_beyond_the_knee() -> None:
    story = Story(cost=Cost(fixed=0.002, per_item=0.01))
    for size in (1, 2, 4, 8, 8) * 10:
        story.answer(size, wait=0.01)
    found = story.explain()
    assert found["throughput"]["knee"] == 2
    assert any("batchSize=8 is beyond the knee" in sentence for sentence in found["why"])
    assert found["suggestions"] == []


def test_a_batch_that_costs_the_same_whatever_its_size() -> None:
    story = Story(cost=Cost(fixed=0.01, per_item=0))
    for size in (1, 2, 4, 8) * 10:
        story.answer(size, wait=0.005)
    found = story.explain()
    assert found["throughput"]["knee"] is None
    assert "a larger batch takes no longer than a small one, as far as was seen" in found["why"]
    assert found["suggestions"][0]["value"] == 64


def test_latency_that_the_batches_do_not_explain() -> None:
    story = Story()
    for size in (1, 2, 3, 4) * 10:
        story.answer(size, wait=0.5, idle=0.3)
    found = story.explain()
    assert found["predictedLatency"] < found["seen"]["latency"]["mean"]
    assert any(sentence.startswith("requests take 5") for sentence in found["why"])


def test_what_could_not_be_answered_is_no_steady_load() -> None:
    story = Story()
    for size in (1, 2, 4, 8) * 10:
        story.number += size  # as many were refused
        story.answer(size, wait=0.1)
    found = story.explain()
    assert found["predictedLatency"] is None
    assert found["why"][-1] == (
        "no latency is predicted: as much comes as can be answered, or more: the queue decides"
    )


def test_refusals_are_told() -> None:
    story = Story()
    story.batcher.refused_full, story.batcher.refused_wait = 3, 2
    story.record.halved = 1
    found = story.explain()
    assert found["why"][1:] == [
        "3 requests were refused: jobQueueSize=100 waited",
        "2 requests were refused: they would have waited too long",
    ]
    assert found["counts"]["halvedBatches"] == 1


def test_what_was_long_ago_is_not_todays_load() -> None:
    story = Story()
    story.answer(1, wait=0)
    story.now += WINDOW + 1
    assert story.explain()["seen"]["batches"] == 0


def test_a_batch_stands_for_its_requests() -> None:
    batch = SeenBatch(size=100, first=1, last=3, number=7, started=4, seconds=1, answered=5, free=0)
    assert percentile(batch.waits(), 0.5) == pytest.approx(2, abs=0.3)
    assert percentile(batch.latencies(), 0.99) == 4
    assert (batch.mean_wait, batch.mean_latency) == (2, 3)
    assert sum(weight for _, weight in batch.waits()) == pytest.approx(100)


def test_full_batches_of_one_size_ask_for_an_experiment() -> None:
    story = Story(batch_size=4)
    for _ in range(40):
        story.answer(4, wait=0.05)
    (suggestion,) = story.explain()["suggestions"]
    assert (suggestion["key"], suggestion["value"]) == ("batchSize", 8)
    assert "only batches of several sizes tell" in suggestion["why"]


def test_memory_that_does_not_suffice_is_told() -> None:
    story = Story()
    story.seat.cap = 4
    for size in (1, 2, 4, 4) * 10:
        story.answer(size, wait=0.05)
    found = story.explain()
    assert "memory does not suffice for more than 4 at once, for now" in found["why"]
    assert found["suggestions"] == []


def test_workers_that_do_not_answer_batch_after_batch() -> None:
    record = BatchRecord()
    batcher = OpenBatcher(batch_size=4, capacity=10)
    found = explain(batcher, record, Forecast(record, COST), 0)
    assert found["predictedWait"] is None
    assert found["predictedLatency"] is None
    seat = batcher.join(0)
    for number in range(20):
        seat.since = number + 0.5
        job = Job([b""], print, Nobody(), Tally(None), number, number)
        record.note(seat, [job], number, 0.5)
    found = explain(batcher, record, Forecast(record, COST), 20)
    assert found["why"][-1] == (
        "no latency is predicted: the workers do not answer batch after batch"
    )
