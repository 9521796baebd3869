"""How many requests a batch may have follows what fits, and finds back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.model.batch_cap import BatchCap

EVENTS = st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=200)


def serve(cap: BatchCap, room: int, batches: int) -> int:
    """Let full batches run where `room` requests fit; return how many did not."""
    failures = 0
    for _ in range(batches):
        size = cap.limit
        if size <= room:
            cap.fitted(size)
        else:
            cap.failed(size)
            failures += 1
    return failures


def test_it_halves_what_did_not_fit() -> None:
    cap = BatchCap(32)
    cap.failed(32)
    assert cap.limit == 16
    cap.failed(12)
    assert cap.limit == 6


def test_what_is_known_already_teaches_nothing() -> None:
    cap = BatchCap(32)
    cap.failed(8)
    cap.failed(16)
    cap.failed(32)
    assert cap.limit == 4


def test_only_full_batches_make_it_grow() -> None:
    cap = BatchCap(8, patience=3)
    cap.failed(8)
    for _ in range(9):
        cap.fitted(3)
    assert cap.limit == 4
    for _ in range(3):
        cap.fitted(4)
    assert cap.limit == 5


def test_a_try_too_many_costs_one_step_and_twice_the_patience() -> None:
    cap = BatchCap(8, patience=2)
    cap.failed(8)
    sizes = []
    for _ in range(10):
        sizes.append(cap.limit)
        (cap.fitted if cap.limit <= 4 else cap.failed)(cap.limit)
    assert sizes == [4, 4, 5, 4, 4, 4, 4, 5, 4, 4]


@given(st.integers(1, 40), EVENTS)
def test_it_stays_within_bounds(batch_size: int, events: list[tuple[bool, int]]) -> None:
    cap = BatchCap(batch_size, patience=2)
    for fits, size in events:
        before = cap.limit
        (cap.fitted if fits else cap.failed)(size)
        assert 1 <= cap.limit <= batch_size
        if fits:
            assert before <= cap.limit <= before + 1
        else:
            assert cap.limit < size if 1 < size <= before else cap.limit == before


@given(st.integers(1, 64), st.integers(1, 64))
def test_failures_are_few_and_the_room_is_used(batch_size: int, room: int) -> None:
    cap = BatchCap(batch_size, patience=2)
    failures = serve(cap, room, 2000)
    assert failures <= 6 + 10  # halving, and tries that grow rarer
    assert min(room, batch_size) <= cap.limit <= min(room + 1, batch_size)


@given(st.integers(2, 64))
def test_room_that_is_back_is_used_in_full(batch_size: int) -> None:
    cap = BatchCap(batch_size, patience=2)
    serve(cap, 1, 20)
    serve(cap, batch_size, 20_000)
    assert cap.limit == batch_size
