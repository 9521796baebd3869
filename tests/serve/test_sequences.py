"""Sequences: which worker gets which request, and when a sequence ends. No clock, no process."""

from __future__ import annotations

from typing import Any

import pytest

from hatch_mar.model.protocol import Request, Response
from hatch_mar.serve.batching.jobs import Job
from hatch_mar.serve.batching.sequences import SequenceBatcher, SequenceHeaders
from hatch_mar.serve.metrics.store import Metrics


class Desk:
    """A batcher, and somebody who hands it jobs."""

    def __init__(self, **limits: Any) -> None:
        limits = {"batch_size": 2, "max_sequences": 4, "queue_size": 2, "max_idle": 10, **limits}
        self.batcher = SequenceBatcher(**limits)
        self.count = 0
        self.tally = Metrics().tally("m", None)

    def offer(self, group: str, now: float = 0) -> bool:
        self.count += 1
        job = Job([], lambda _: None, None, self.tally, self.count, now)  # type: ignore[arg-type]
        job.group = group
        return self.batcher.offer(job)

    def assign(self, now: float = 0) -> list[list[int]]:
        """Return the numbers of the jobs that each worker is given."""
        return [[job.number for job in jobs] for _, jobs in self.batcher.assign(now)]


def test_a_batch_has_one_request_of_each_sequence() -> None:
    desk = Desk()
    seat = desk.batcher.join(0)
    assert all(desk.offer(group) for group in ("a", "a", "b"))
    assert desk.assign() == [[1, 3]]
    assert desk.assign() == []
    desk.batcher.answered(seat, 2, 0.1)
    assert desk.assign() == [[2]]


def test_a_sequence_stays_with_its_worker() -> None:
    desk = Desk()
    seats = [desk.batcher.join(0), desk.batcher.join(0)]
    desk.offer("a")
    ((seat, _),) = desk.batcher.assign(0)
    desk.batcher.answered(seat, 1, 0.1)
    desk.offer("b")
    desk.offer("a")
    given = {chosen: [job.group for job in jobs] for chosen, jobs in desk.batcher.assign(0)}
    other = next(one for one in seats if one is not seat)
    assert given == {seat: ["a"], other: ["b"]}


def test_bounds_of_sequences_and_of_their_queues() -> None:
    desk = Desk(max_sequences=2)
    assert [desk.offer(group) for group in ("a", "a", "a")] == [True, True, False]
    assert [desk.offer(group) for group in ("b", "c")] == [True, False]


def test_a_sequence_waits_until_a_worker_has_a_place() -> None:
    desk = Desk(batch_size=1, max_idle=5)
    seat = desk.batcher.join(0)
    desk.offer("a")
    desk.offer("b")
    assert desk.assign() == [[1]]
    seat.since = 1.0
    desk.batcher.answered(seat, 1, 0.1)
    assert desk.assign(1) == []
    assert desk.batcher.wake_at() == 6
    assert desk.batcher.lapsed(6) == []
    assert desk.assign(6) == [[2]]


def test_a_sequence_is_not_idle_while_it_is_answered() -> None:
    desk = Desk(max_idle=5)
    desk.batcher.join(0)
    desk.offer("a")
    desk.assign()
    assert desk.batcher.wake_at() == float("inf")


def test_a_sequence_that_is_too_old_ends_with_what_waits() -> None:
    desk = Desk(timeout=3)
    desk.batcher.join(0)
    desk.offer("a")
    desk.assign()
    desk.offer("a", 1)
    assert [job.number for job in desk.batcher.lapsed(3)] == [2]


def test_a_sequence_that_the_handler_ends_makes_room() -> None:
    desk = Desk(max_sequences=1)
    seat = desk.batcher.join(0)
    desk.offer("a")
    desk.assign()
    desk.offer("a")
    desk.batcher.answered(seat, 1, 0.1)
    assert [job.number for job in desk.batcher.finish("a")] == [2]
    assert desk.offer("b")


def test_what_a_dead_worker_had_not_begun_goes_to_another() -> None:
    desk = Desk()
    first = desk.batcher.join(0)
    desk.offer("a")
    desk.offer("b")
    desk.assign()
    assert [job.number for job in desk.batcher.leave(first, 1)] == [1]
    desk.batcher.join(0)
    assert desk.assign() == [[2]]


def test_rounds_hold_several_requests_of_a_sequence() -> None:
    desk = Desk(overlapping=True, batch_size=1)
    seat = desk.batcher.join(0)
    desk.offer("a")
    desk.offer("a")
    assert desk.assign() == [[1]]
    assert desk.assign() == [[2]]
    assert [job.number for job in desk.batcher.answered_some(seat, [2], 0.1)] == [2]


def test_a_describe_belongs_to_no_sequence() -> None:
    desk = Desk(max_sequences=1)
    desk.batcher.join(0)
    assert desk.offer("")
    assert desk.offer("a")
    assert desk.assign() == [[1]]


def test_a_cancelled_request_leaves_its_queue() -> None:
    desk = Desk()
    desk.offer("a")
    ((_, (job,)),) = [(desk.batcher.join(0), tuple(desk.batcher.withdraw()))]
    desk.batcher.offer(job)
    desk.batcher.cancel(job)
    assert desk.assign() == []
    assert not desk.batcher.awaited


def test_a_request_that_names_no_sequence_begins_one() -> None:
    request = Request("id", (("X", "1"),), ())
    ident = SequenceHeaders().join(request)
    assert ident.startswith("ts-seq-")
    headers = dict(request.headers)
    assert headers["ts_request_sequence_id"] == ident
    assert headers["ts_request_sequence_start"] == "true"


@pytest.mark.parametrize("name", ["ts_request_sequence_id", "TS_Request_Sequence_ID"])
def test_a_request_that_names_a_sequence_stays_as_it_is(name: str) -> None:
    request = Request("id", ((name, "mine"),), ())
    assert SequenceHeaders().join(request) == "mine"
    assert list(request.headers) == [(name, "mine")]


def test_names_of_headers_come_from_the_environment() -> None:
    headers = SequenceHeaders.from_environ({"TS_REQUEST_SEQUENCE_END": "done"})
    response = Response(200, b"", headers=(("Done", "a; b"),))
    assert headers.ended(response) == ["a", "b"]
    assert headers.ident == "ts_request_sequence_id"


def test_a_late_request_leaves_its_sequence() -> None:
    desk = Desk()
    for group, patience in (("a", 9.0), ("a", 1.0), ("", 1.0)):
        desk.count += 1
        job = Job([], lambda _: None, None, desk.tally, desk.count, 0)  # type: ignore[arg-type]
        job.group, job.deadline = group, patience
        assert desk.batcher.offer(job)
    assert desk.batcher.wake_at() == 1
    assert sorted(job.number for job in desk.batcher.late(1)) == [2, 3]
    desk.batcher.join(0)
    assert desk.assign() == [[1]]
    assert desk.batcher.next_deadline == 9
