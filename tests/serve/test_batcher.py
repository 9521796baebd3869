"""The batcher keeps its promises under any order of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hatch_mar.serve.batching.batcher import AHEAD_SECONDS, Batcher
from hatch_mar.serve.batching.jobs import Job, Seat
from hatch_mar.serve.metrics.store import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence


class Nobody:
    def cancel(self, job: Job) -> None:
        raise AssertionError(job)

    hold = release = cancel


def make_job(number: int, arrived: float = 0.0) -> Job:
    return Job([b""], print, Nobody(), Tally(None), number, arrived)


def offer(batcher: Batcher, numbers: Sequence[int], arrived: float = 0.0) -> list[Job]:
    jobs = [make_job(number, arrived) for number in numbers]
    for job in jobs:
        assert batcher.offer(job)
    return jobs


def numbers(orders: Sequence[tuple[Seat, list[Job]]]) -> list[list[int]]:
    return [[job.number for job in jobs] for _, jobs in orders]


class BatcherMachine(RuleBasedStateMachine):
    """Every event in any order; the model is a list of who is where."""

    @initialize(
        batch_size=st.integers(1, 5),
        capacity=st.integers(1, 20),
        max_delay=st.sampled_from([0.0, 0.5]),
        client_timeout=st.sampled_from([0.0, 5.0]),
    )
    def start(
        self, batch_size: int, capacity: int, max_delay: float, client_timeout: float
    ) -> None:
        self.batcher = Batcher(
            batch_size=batch_size,
            capacity=capacity,
            max_delay=max_delay,
            client_timeout=client_timeout,
            response_timeout=60,
        )
        self.now = 0.0
        self.number = 0
        self.accepted: set[int] = set()
        self.ended: list[int] = []
        self.started: dict[int, int] = {}
        self.retired: set[int] = set()

    def end(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.ended.append(job.number)

    @rule(count=st.integers(1, 6), patience=st.sampled_from([float("inf"), 0.5, 3.0]))
    def arrive(self, count: int, patience: float) -> None:
        for _ in range(count):
            pending = self.batcher.pending
            self.number += 1
            job = make_job(self.number, self.now)
            job.deadline = self.now + patience
            if self.batcher.offer(job):
                self.accepted.add(job.number)
                assert pending < self.batcher.capacity
            else:
                assert pending >= self.batcher.capacity

    @rule(batches=st.integers(1, 3))
    def join(self, batches: int) -> None:
        if len(self.batcher.seats) < 3:
            self.batcher.join(self.now, batches=batches)

    @rule()
    def assign(self) -> None:
        waiting = [job.number for job in self.batcher._queue]
        idle = [seat for seat in self.batcher.seats if not seat.held]
        orders = self.batcher.assign(self.now)
        sent = [job.number for _, jobs in orders for job in jobs]
        assert sorted(sent) == waiting[: len(sent)], "not first come, first served"
        for seat, jobs in orders:
            assert [job.number for job in jobs] == sorted(job.number for job in jobs)
            if seat in idle and len(self.batcher.seats) > 1 and not seat.item_time:
                ahead = seat.batches if seat.batches > 1 else 0
                assert len(jobs) <= (1 + ahead) * self.batcher.batch_size
            assert len(seat.held) <= max(
                (seat.batches + 1) * self.batcher.batch_size,
                AHEAD_SECONDS / (seat.item_time or 1) + self.batcher.batch_size,
            )
        if not self.batcher.max_delay:
            left = self.batcher.waiting
            assert not (left and self.batcher.is_free()), "somebody idles while requests wait"

    @precondition(lambda self: any(seat.held for seat in self.batcher.seats))
    @rule(data=st.data(), seconds=st.sampled_from([0.0001, 0.01, 1.0]))
    def answer(self, data: st.DataObject, seconds: float) -> None:
        seat = data.draw(st.sampled_from([seat for seat in self.batcher._all() if seat.held]))
        count = data.draw(st.integers(1, min(len(seat.held), self.batcher.batch_size)))
        oldest = [job.number for job in seat.held][:count]
        jobs = self.batcher.answered(seat, count, seconds)
        assert [job.number for job in jobs] == oldest
        self.end([job for job in jobs if not job.done])

    @precondition(lambda self: self.batcher._all())
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        seat = data.draw(st.sampled_from(self.batcher._all()))
        begun = data.draw(st.integers(0, len(seat.held)))
        held = [job.number for job in seat.held]
        failed = self.batcher.leave(seat, seat.answered + begun)
        assert [job.number for job in failed] == held[:begun]
        self.end([job for job in failed if not job.done])

    @precondition(lambda self: self.batcher.seats)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        self.batcher.retire(data.draw(st.sampled_from(self.batcher.seats)))

    @precondition(lambda self: self.batcher.awaited)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        jobs = [*self.batcher._queue, *(job for seat in self.batcher._all() for job in seat.held)]
        job = data.draw(st.sampled_from(jobs))
        if not job.done:
            self.batcher.cancel(job)
            self.end([job])

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        late = self.batcher.late(self.now)
        for job in late:
            assert job.deadline <= self.now
            job.done = True
        self.end(late)
        self.end(self.batcher.expired(self.now))

    @invariant()
    def nothing_is_lost_or_answered_twice(self) -> None:
        held = [job for seat in self.batcher._all() for job in seat.held if not job.done]
        alive = [*self.batcher._queue, *held]
        everybody = [*self.ended, *(job.number for job in alive)]
        assert sorted(everybody) == sorted(self.accepted)

    @invariant()
    def a_deadline_is_never_overlooked(self) -> None:
        held = [job for seat in self.batcher._all() for job in seat.held if not job.done]
        deadlines = [job.deadline for job in (*self.batcher._queue, *held)]
        assert self.batcher.next_deadline <= min(deadlines, default=float("inf"))
        assert self.batcher.wake_at() <= min(deadlines, default=float("inf"))

    @invariant()
    def the_queue_is_in_order(self) -> None:
        queue = [job.number for job in self.batcher._queue]
        assert queue == sorted(queue)

    @invariant()
    def pending_is_what_nobody_can_have_begun(self) -> None:
        size = self.batcher.batch_size
        seats = self.batcher._all()
        ahead = sum(max(0, len(seat.held) - size * seat.batches) for seat in seats)
        assert self.batcher.pending == self.batcher.waiting + ahead


TestBatcherMachine = BatcherMachine.TestCase
TestBatcherMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_an_idle_worker_takes_what_waits_at_once() -> None:
    batcher = Batcher(batch_size=4, capacity=100)
    batcher.join(0)
    offer(batcher, range(3))
    assert numbers(batcher.assign(0)) == [[0, 1, 2]]


def test_nobody_there_nobody_served() -> None:
    batcher = Batcher(batch_size=4, capacity=100)
    offer(batcher, range(3))
    assert batcher.assign(0) == []
    assert batcher.waiting == 3


def test_idle_workers_come_before_busy_ones() -> None:
    batcher = Batcher(batch_size=2, capacity=100)
    first, second = batcher.join(0), batcher.join(0)
    offer(batcher, range(4))
    orders = batcher.assign(0)
    assert numbers(orders) == [[0, 1], [2, 3]]
    assert {orders[0][0], orders[1][0]} == {first, second}


def test_the_only_worker_may_hold_its_next_batch() -> None:
    batcher = Batcher(batch_size=2, capacity=100)
    batcher.join(0)
    offer(batcher, range(9))
    assert numbers(batcher.assign(0)) == [[0, 1, 2, 3]]
    assert batcher.assign(0) == []


def test_workers_whose_batches_overlap_hold_one_more_than_they_may_have_begun() -> None:
    batcher = Batcher(batch_size=2, capacity=100)
    first, second = (batcher.join(0, batches=3) for _ in range(2))
    offer(batcher, range(30))
    batcher.assign(0)
    assert (len(first.held), len(second.held)) == (8, 8)
    assert (batcher.waiting, batcher.pending) == (14, 14 + 2 * 2)
    begun = batcher.leave(first, started=5)
    assert len(begun) == 5
    assert (batcher.waiting, batcher.pending) == (17, 17 + 2)


def test_one_of_several_slow_workers_holds_no_more_than_it_runs() -> None:
    batcher = Batcher(batch_size=1, capacity=100)
    for _ in range(2):
        batcher.join(0)
    offer(batcher, range(9))
    for seat, _ in batcher.assign(0):
        batcher.answered(seat, 1, seconds=1)
    assert numbers(batcher.assign(2)) == [[2], [3]]


def test_quick_workers_hold_some_milliseconds_of_work_in_equal_shares() -> None:
    batcher = Batcher(batch_size=1, capacity=100)
    for _ in range(2):
        batcher.join(0)
    offer(batcher, range(2))
    for seat, _ in batcher.assign(0):
        batcher.answered(seat, 1, seconds=AHEAD_SECONDS / 10)
    offer(batcher, range(2, 12))
    orders = batcher.assign(0)
    assert sorted(len(jobs) for _, jobs in orders) == [5, 5]
    assert batcher.waiting == 0


def test_equal_workers_get_equal_work() -> None:
    batcher = Batcher(batch_size=1, capacity=100)
    seats = [batcher.join(0) for _ in range(3)]
    served = []
    for number in range(6):
        offer(batcher, [number])
        ((seat, _),) = batcher.assign(0)
        batcher.answered(seat, 1, seconds=1)
        served.append(seats.index(seat))
    assert sorted(served) == [0, 0, 1, 1, 2, 2]


def test_a_full_queue_takes_nobody() -> None:
    batcher = Batcher(batch_size=1, capacity=2)
    offer(batcher, range(2))
    assert not batcher.offer(make_job(2))


def test_what_a_busy_worker_holds_counts_as_waiting() -> None:
    batcher = Batcher(batch_size=1, capacity=2)
    batcher.join(0)
    offer(batcher, range(2))
    batcher.assign(0)
    assert (batcher.waiting, batcher.pending) == (0, 1)
    offer(batcher, [2])
    assert not batcher.offer(make_job(3))


def test_tickets_are_as_many_as_idle_workers_can_serve() -> None:
    batcher = Batcher(batch_size=2, capacity=100, tickets=True)
    assert not batcher.offer(make_job(0))
    batcher.join(0)
    offer(batcher, range(2))
    assert not batcher.offer(make_job(2))


class TestDelay:
    def test_an_incomplete_batch_waits_for_company(self) -> None:
        batcher = Batcher(batch_size=3, capacity=100, max_delay=0.1)
        batcher.join(0)
        offer(batcher, range(2), arrived=1.0)
        assert batcher.assign(1.05) == []
        assert batcher.wake_at() == pytest.approx(1.1)
        assert numbers(batcher.assign(1.2)) == [[0, 1]]

    def test_a_complete_one_does_not(self) -> None:
        batcher = Batcher(batch_size=2, capacity=100, max_delay=0.1)
        batcher.join(0)
        offer(batcher, range(3), arrived=1.0)
        assert numbers(batcher.assign(1.0)) == [[0, 1]]
        assert batcher.waiting == 1

    def test_the_last_moment_is_not_missed(self) -> None:
        """0.1 + 0.2 is more than 0.3: what `wake_at` names must be late enough."""
        batcher = Batcher(batch_size=2, capacity=100, max_delay=0.2)
        batcher.join(0)
        offer(batcher, [1], arrived=0.1)
        assert numbers(batcher.assign(batcher.wake_at())) == [[1]]


class TestTime:
    def test_nothing_to_wait_for(self) -> None:
        batcher = Batcher(batch_size=2, capacity=100, response_timeout=5)
        batcher.join(0)
        assert batcher.wake_at() == float("inf")

    def test_a_worker_is_stuck_after_silence_over_its_work(self) -> None:
        batcher = Batcher(batch_size=1, capacity=100, response_timeout=5)
        seat = batcher.join(0)
        offer(batcher, [1], arrived=10)
        batcher.assign(10)
        assert batcher.wake_at() == 15
        assert batcher.stuck(14.9) == []
        assert batcher.stuck(15) == [seat]

    def test_what_is_given_to_a_busy_worker_does_not_excuse_it(self) -> None:
        batcher = Batcher(batch_size=1, capacity=100, response_timeout=5)
        seat = batcher.join(0)
        offer(batcher, [1])
        batcher.assign(10)
        offer(batcher, [2])
        batcher.assign(14)
        assert batcher.stuck(15) == [seat]

    def test_no_timeout_nobody_stuck(self) -> None:
        batcher = Batcher(batch_size=1, capacity=100)
        batcher.join(0)
        offer(batcher, [1])
        batcher.assign(0)
        assert batcher.stuck(1e9) == []

    def test_clients_give_up_in_order_of_arrival(self) -> None:
        batcher = Batcher(batch_size=1, capacity=100, client_timeout=2)
        offer(batcher, [1], arrived=0)
        offer(batcher, [2], arrived=1)
        assert batcher.wake_at() == 2
        assert [job.number for job in batcher.expired(2)] == [1]


class TestDeath:
    def test_what_was_not_begun_goes_back_to_the_head(self) -> None:
        batcher = Batcher(batch_size=2, capacity=100)
        seat = batcher.join(0)
        offer(batcher, range(6))
        batcher.assign(0)
        failed = batcher.leave(seat, started=2)
        assert [job.number for job in failed] == [0, 1]
        batcher.join(0)
        assert numbers(batcher.assign(0)) == [[2, 3, 4, 5]]

    def test_two_deaths_do_not_mix_the_order(self) -> None:
        batcher = Batcher(batch_size=2, capacity=100)
        for _ in range(2):
            batcher.join(0)
        offer(batcher, range(4))
        (one, _), (other, _) = batcher.assign(0)
        batcher.leave(one, started=0)
        batcher.leave(other, started=0)
        batcher.join(0)
        assert numbers(batcher.assign(0)) == [[0, 1, 2, 3]]

    def test_without_a_count_all_were_begun(self) -> None:
        batcher = Batcher(batch_size=2, capacity=100)
        seat = batcher.join(0)
        offer(batcher, range(2))
        batcher.assign(0)
        assert len(batcher.leave(seat)) == 2

    def test_the_cancelled_do_not_come_back(self) -> None:
        batcher = Batcher(batch_size=2, capacity=100)
        seat = batcher.join(0)
        (job,) = offer(batcher, [1])
        batcher.assign(0)
        batcher.cancel(job)
        assert batcher.leave(seat, started=0) == []
        assert not batcher.awaited

    def test_withdrawing_empties_the_queue(self) -> None:
        batcher = Batcher(batch_size=2, capacity=100)
        jobs = offer(batcher, range(3))
        assert batcher.withdraw() == jobs
        assert batcher.waiting == 0


def test_who_is_retired_twice_is_given_nothing_and_leaves_once() -> None:
    batcher = Batcher(batch_size=2, capacity=100)
    seat = batcher.join(0)
    offer(batcher, range(2))
    batcher.assign(0)
    batcher.retire(seat)
    batcher.retire(seat)
    offer(batcher, [2])
    assert batcher.assign(0) == []
    assert [job.number for job in batcher.leave(seat, 2)] == [0, 1]


class TestCap:
    """A worker for whose memory batches are too large is given smaller ones."""

    def test_an_idle_worker_is_given_what_fits(self) -> None:
        batcher = Batcher(batch_size=8, capacity=100)
        batcher.join(0), batcher.join(0)
        batcher.seats[0].cap = 3
        offer(batcher, range(12))
        assert numbers(batcher.assign(0)) == [[0, 1, 2], [3, 4, 5, 6, 7, 8, 9, 10]]

    def test_a_busy_one_holds_no_more_than_two_of_those(self) -> None:
        batcher = Batcher(batch_size=8, capacity=100)
        seat = batcher.join(0)
        seat.cap = 2
        offer(batcher, range(12))
        assert numbers(batcher.assign(0)) == [[0, 1, 2, 3]]
        assert batcher.waiting == 8

    def test_what_fits_is_a_full_batch_and_waits_for_nobody(self) -> None:
        batcher = Batcher(batch_size=8, capacity=100, max_delay=1)
        batcher.join(0).cap = 2
        offer(batcher, range(2))
        assert numbers(batcher.assign(0)) == [[0, 1]]
