"""Predictions are held against simulations; time is a number here, and nobody waits."""

from __future__ import annotations

import random
from collections import deque
from math import inf

import pytest

from hatch_mar.serve.batching.batcher import TRUST, Batcher
from hatch_mar.serve.batching.costs import Cost
from hatch_mar.serve.batching.forecast import Forecast, bound_latency
from hatch_mar.serve.batching.jobs import Job, Seat
from hatch_mar.serve.batching.record import LATEST, BatchRecord
from hatch_mar.serve.metrics.store import Tally


class Nobody:
    def cancel(self, job: Job) -> None:
        raise AssertionError(job)

    hold = release = cancel


def make_job(number: int, arrived: float, patience: float = inf) -> Job:
    job = Job([b""], print, Nobody(), Tally(None), number, arrived)
    job.deadline = arrived + patience
    return job


def measure_latency(rate: float, cost: Cost, batch_size: int, requests: int = 20_000) -> float:
    """Return the mean latency of one worker that takes what waits, simulated."""
    rng = random.Random(1)
    clock = 0.0
    arrivals = [clock := clock + rng.expovariate(rate) for _ in range(requests)]
    free = total = 0.0
    begun = 0
    while begun < requests:
        free = max(free, arrivals[begun])
        end = begun + 1
        while end < min(requests, begun + batch_size) and arrivals[end] <= free:
            end += 1
        free += cost.of(end - begun)
        total += sum(free - arrived for arrived in arrivals[begun:end])
        begun = end
    return total / requests


@pytest.mark.parametrize("load", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("ratio", [2, 40])
def test_the_bound_is_above_the_truth_and_near(load: float, batch_size: int, ratio: int) -> None:
    cost = Cost(fixed=0.002, per_item=0.002 / ratio)
    rate = load * cost.capacity(batch_size)
    truth = measure_latency(rate, cost, batch_size)
    noise = 0.05 if load > 0.8 else 0.02
    bound = bound_latency(rate, cost, batch_size)
    assert (1 - noise) * truth < bound < 1.45 * truth


def test_one_at_a_time_is_pollaczek_and_khinchine() -> None:
    cost = Cost(fixed=0.01, per_item=0.0)
    assert bound_latency(50, cost, 1) == pytest.approx(0.01 + 50 * 0.01**2 / (2 * 0.5))


def test_what_cannot_be_answered_waits_for_ever() -> None:
    assert bound_latency(401, Cost(fixed=0.01, per_item=0.0), 4) == inf


class Simulation:
    """A batcher, workers with a cost, and a clock that is a number."""

    def __init__(
        self, cost: Cost, *, workers: int = 1, known: Cost | None = None, **limits: float
    ) -> None:
        self.cost = cost
        self.delay = 0.0
        self.now = 100.0
        self.record = BatchRecord()
        limits = {"batch_size": 4, "capacity": 10_000, **limits}
        self.batcher = Batcher(**limits, forecast=Forecast(self.record, known))  # type: ignore[arg-type]
        self.seats = [self.batcher.join(self.now) for _ in range(workers)]
        self.running: dict[Seat, tuple[float, float, int]] = {}
        self.number = 0
        self.refused = 0
        self.late: list[Job] = []
        self.waits: list[float] = []
        self.answered: list[tuple[Job, float]] = []

    def arrive(self, patience: float = inf) -> bool:
        self.number += 1
        job = make_job(self.number, self.now, patience)
        taken = self.batcher.offer(job)
        self.refused += not taken
        self.pump()
        return taken

    def pump(self) -> None:
        self.late += self.batcher.late(self.now)
        self.batcher.assign(self.now)
        for seat in self.seats:
            if seat.held and seat not in self.running:
                size = min(len(seat.held), self.batcher.batch_size)
                self.running[seat] = (self.now, self.now + self.cost.of(size), size)

    def run_until(self, end: float) -> None:
        while self.running and min(until for _, until, _ in self.running.values()) <= end:
            seat = min(self.running, key=lambda one: self.running[one][1])
            started, until, size = self.running.pop(seat)
            self.now = until
            jobs = self.batcher.answered(seat, size, until - started)
            seat.since = until + self.delay
            self.record.note(seat, jobs, started, until - started)
            seat.since = until
            self.waits += [started - job.arrived for job in jobs]
            self.answered += [(job, until + self.delay) for job in jobs]
            self.pump()
        self.now = end

    def load(self, rate: float, seconds: float, patience: float = inf) -> None:
        """Let requests arrive at a steady `rate`, whoever is answered."""
        end = self.now + seconds
        while self.now < end:
            self.arrive(patience)
            self.run_until(self.now + 1 / rate)


COST = Cost(fixed=0.016, per_item=0.001)
CAPACITY = COST.capacity(4)
"""200 requests per second."""


@pytest.mark.parametrize("workers", [1, 3])
def test_at_twice_the_capacity_nobody_waits_longer_than_the_bound(workers: int) -> None:
    simulation = Simulation(COST, workers=workers, max_wait=0.2)
    simulation.load(2 * workers * CAPACITY, 10)
    assert max(simulation.waits) <= TRUST * 0.2
    assert len(simulation.answered) >= 0.99 * workers * CAPACITY * 10
    assert simulation.batcher.refused_wait == simulation.refused > 0


@pytest.mark.parametrize("workers", [1, 3])
def test_at_twice_the_capacity_what_is_accepted_meets_its_deadline(workers: int) -> None:
    simulation = Simulation(COST, workers=workers)
    simulation.load(2 * workers * CAPACITY, 10, patience=0.25)
    good = [job for job, answered in simulation.answered if answered <= job.deadline]
    assert len(good) >= 0.95 * workers * CAPACITY * 10
    assert not simulation.late


def test_the_clients_timeout_is_a_deadline_too() -> None:
    simulation = Simulation(COST, client_timeout=0.25)
    simulation.load(2 * CAPACITY, 10)
    good = [job for job, answered in simulation.answered if answered <= job.arrived + 0.25]
    assert len(good) >= 0.95 * CAPACITY * 10


def test_below_the_capacity_nobody_is_refused() -> None:
    simulation = Simulation(COST, max_wait=0.05)
    simulation.load(0.9 * CAPACITY, 10, patience=0.1)
    assert not simulation.refused


def test_without_a_bound_only_the_queue_is_one() -> None:
    simulation = Simulation(COST, capacity=100)
    simulation.load(2 * CAPACITY, 10)
    assert simulation.batcher.refused_wait == 0
    assert simulation.batcher.refused_full == simulation.refused > 0


def test_a_prediction_that_is_wrong_is_found_out() -> None:
    """A model that took a minute at first is asked again as soon as its worker is idle."""
    simulation = Simulation(Cost(fixed=60, per_item=0))
    simulation.arrive()
    simulation.run_until(1000)
    simulation.arrive()
    assert not simulation.arrive(patience=1)
    simulation.run_until(2000)
    simulation.cost = COST
    for _ in range(40):
        assert simulation.arrive(patience=0.05)
        simulation.run_until(simulation.now + 1)
    assert simulation.batcher.predict_wait(simulation.now) == 0


def test_a_request_behind_a_full_batch_waits_for_two() -> None:
    simulation = Simulation(COST, known=COST)
    for _ in range(9):
        simulation.arrive()
    simulation.run_until(simulation.now + COST.of(1) + 0.001)
    running = COST.of(4) - 0.001
    assert simulation.batcher.predict_wait(simulation.now) == pytest.approx(running + COST.of(4))


def test_an_idle_worker_takes_one_batch_and_not_all_that_comes_at_once() -> None:
    """Requests that one turn of the loop brings are offered before any of them is sent."""
    simulation = Simulation(COST, known=COST)
    taken = [simulation.batcher.offer(make_job(number, 100.0, 0.06)) for number in range(20)]
    # Two batches of 20 ms can be answered in 60; the third one would be, but only just.
    assert taken == [True] * 8 + [False] * 12


def test_late_requests_leave_the_queue_without_being_run() -> None:
    simulation = Simulation(Cost(fixed=1, per_item=0), batch_size=1)
    patience = [inf, inf, inf, 0.5, inf]
    assert all(simulation.arrive(each) for each in patience)
    assert simulation.batcher.wake_at() == pytest.approx(100.5)
    simulation.run_until(110)
    assert [job.number for job in simulation.late] == [4]
    assert [job.number for job, _ in simulation.answered] == [1, 2, 3, 5]
    assert simulation.batcher.wake_at() == inf


def test_the_record_does_not_grow() -> None:
    record, seat = BatchRecord(), Seat()
    for number in range(3 * LATEST):
        record.note(seat, [make_job(number, number)], number, 0.5)
    assert len(record.times()) == LATEST
    assert (record.count, record.sizes) == (3 * LATEST, {1: 3 * LATEST})


def test_a_forecast_follows_a_change() -> None:
    record, seat = BatchRecord(), Seat()
    forecast = Forecast(record)
    sizes = deque([1, 2, 4, 8])
    for number in range(4 * LATEST):
        cost = Cost(fixed=0.01, per_item=0.001) if number < 2 * LATEST else COST
        sizes.rotate()
        jobs = [make_job(number, number)] * sizes[0]
        seat.since = number + cost.of(sizes[0])
        record.note(seat, jobs, number, cost.of(sizes[0]))
    fit = forecast.fit(5 * LATEST)
    assert fit.cost is not None
    assert fit.cost.fixed == pytest.approx(COST.fixed)


def test_a_cost_that_was_given_is_used_until_batches_tell_better() -> None:
    record, seat = BatchRecord(), Seat()
    forecast = Forecast(record, COST)
    assert forecast.fit(0).source == "given"
    assert forecast.fit(0).seconds(4) == COST.of(4)
    for number, size in enumerate([1, 2, 4, 8] * 10):
        record.note(seat, [make_job(number, number)] * size, number, 0.002 * size)
    assert forecast.fit(100).source == "measured"
    for number in range(LATEST):
        record.note(seat, [make_job(number, number)], number, 0.002)
    fit = forecast.fit(1000)
    assert fit.source == "remembered"
    assert fit.seconds(4) == pytest.approx(0.008)


def test_what_takes_longer_than_batches_cost_is_learned() -> None:
    """The door is slow: answers are there only a while after the workers have made them."""
    simulation = Simulation(COST)
    simulation.delay = 0.08
    simulation.load(2 * CAPACITY, 10, patience=0.25)
    good = [job for job, answered in simulation.answered if answered <= job.deadline]
    assert len(good) >= 0.8 * len(simulation.answered)
    assert simulation.record.drift > 1.2
    simulation.delay = 0
    simulation.load(0.5 * CAPACITY, 10, patience=0.25)
    assert simulation.record.drift < 1.2
