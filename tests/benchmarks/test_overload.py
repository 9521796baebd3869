from __future__ import annotations

import pytest

from benchmarks.client import NO_ANSWER, Answered
from benchmarks.overload import IN_TIME, capacity, summarise

SECONDS = 10.0
"""Of which the first four settle."""


def summed(*answered: Answered) -> dict[str, float]:
    one = summarise(answered, "somebody", 0, 2.0, SECONDS)
    keys = ("goodput", "answered", "refused", "failed", "p50", "most", "late")
    return {key: getattr(one, key) for key in keys}


def test_capacity_is_that_of_full_batches() -> None:
    assert capacity() == pytest.approx(8 / 0.021)


def test_goodput_is_what_came_in_time() -> None:
    in_time = [Answered(5.0, 5.0, 5.1, 200), Answered(3.5, 3.5, 4.2, 200)]
    late = [Answered(5.0, 5.0, 5.01 + IN_TIME, 200)]
    settling = [Answered(1.0, 1.0, 1.1, 200)]
    after = [Answered(9.9, 9.9, 10.1, 200)]
    found = summed(*in_time, *late, *settling, *after)
    assert found["goodput"] == pytest.approx(2 / 6.0 / capacity())


def test_every_request_is_answered_refused_or_failed() -> None:
    found = summed(
        Answered(5.0, 5.0, 5.1, 200),
        Answered(6.0, 6.0, 6.1, 503),
        Answered(7.0, 7.0, 7.1, 408),
        Answered(8.0, 8.0, 8.1, NO_ANSWER),
    )
    assert (found["answered"], found["refused"], found["failed"]) == (0.25, 0.5, 0.25)


def test_latency_counts_from_when_a_request_was_due() -> None:
    found = summed(Answered(5.0, 5.02, 5.1, 200), Answered(6.0, 6.0, 6.3, 200))
    assert found["p50"] == pytest.approx(100)
    assert found["most"] == pytest.approx(300)
    assert found["late"] == pytest.approx(20)
