from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.apps import works
from benchmarks.tally import TALLY, mean_size, read_sizes, replay, sizes_between

if TYPE_CHECKING:
    from pathlib import Path

SIZES = st.dictionaries(st.integers(1, 64), st.integers(1, 10_000), min_size=1, max_size=8)


def test_a_handler_counts_its_batches_where_they_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TALLY, str(tmp_path))
    do = works.open_work("noop-8")
    for size in (3, 8, 3):
        assert do([b""] * size) == [b"ok"] * size
    assert read_sizes(tmp_path / "noop-8") == {3: 2, 8: 1}


def test_nobody_counts_where_nobody_asked(tmp_path: Path) -> None:
    assert read_sizes(tmp_path / "json-1") == {}


def test_counts_are_native_numbers_of_eight_bytes(tmp_path: Path) -> None:
    (tmp_path / "raw-1").write_bytes(array("Q", [0, 5, 0, 7]).tobytes())
    assert read_sizes(tmp_path / "raw-1") == {1: 5, 3: 7}


def test_a_point_has_what_was_counted_in_its_time() -> None:
    assert sizes_between({1: 5, 2: 1}, {1: 9, 2: 1, 8: 3}) == {1: 4, 8: 3}


def test_the_mean_is_of_batches() -> None:
    assert mean_size({1: 3, 5: 1}) == 2.0
    assert mean_size({}) == 0.0


@given(SIZES)
def test_a_replay_has_each_size_as_often_as_its_share(sizes: dict[int, int]) -> None:
    replayed = Counter(replay(sizes, 1000))
    batches = sum(sizes.values())
    assert set(replayed) <= set(sizes)
    for size, count in sizes.items():
        assert abs(replayed[size] / 1000 - count / batches) <= 0.0005


def test_a_replay_is_the_same_every_time() -> None:
    sizes = {1: 10, 32: 90}
    assert replay(sizes) == replay(sizes)
    assert replay(sizes)[:50] != sorted(replay(sizes))[:50]


def test_nothing_counted_cannot_be_replayed() -> None:
    with pytest.raises(ValueError, match="no batch was counted"):
        replay({})
