from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.weights.partial import Origin, Partial, notes_of

ORIGIN = Origin.of("https://host/w", '"1"', 100)


def _partial(path: Path, *spans: tuple[int, int]) -> Partial:
    partial = Partial(path)
    partial.belong_to(ORIGIN)
    for start, stop in spans:
        partial.write(start, bytes(range(start, stop)))
    return partial


def test_what_was_written_down_is_taken_up(tmp_path: Path) -> None:
    partial = _partial(tmp_path / "w", (0, 10), (30, 40))
    partial.save()
    partial.close()
    again = Partial(tmp_path / "w")
    assert (again.prefix, again.present, again.end) == (10, 20, 40)
    assert list(again.gaps(100)) == [(10, 30), (40, 100)]
    assert again.origin == ORIGIN


def test_what_was_not_written_down_is_not_there(tmp_path: Path) -> None:
    partial = _partial(tmp_path / "w", (0, 10))
    partial.save()
    partial.write(10, b"killed after this")
    partial.close()
    assert Partial(tmp_path / "w").present == 10


def test_a_file_without_notes_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"x" * 100)
    partial = _partial(tmp_path / "w", (0, 5))
    assert partial.present == 5
    partial.hash_on(5, bytearray(10))
    partial.finish()
    assert (tmp_path / "w").read_bytes() == bytes(range(5))


@pytest.mark.parametrize(
    "spans",
    [[[0, 11]], [[-1, 5]], [[5, 5]], [[5, 2]], [[0, 5], [5, 9]], [[0, "5"]], [[0]], [0], 7, None],
)
def test_notes_that_make_no_sense(tmp_path: Path, spans: Any) -> None:
    partial = _partial(tmp_path / "w", (0, 10))
    partial.save()
    partial.close()
    notes = notes_of(tmp_path / "w")
    notes.write_text(json.dumps(json.loads(notes.read_text()) | {"spans": spans}))
    assert Partial(tmp_path / "w").present == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"spans": []}', '{"origin": 1, "spans": []}'])
def test_notes_of_somebody_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "w").write_bytes(b"x")
    notes_of(tmp_path / "w").write_text(text)
    assert Partial(tmp_path / "w").origin is None


def test_notes_of_a_file_that_is_gone(tmp_path: Path) -> None:
    partial = _partial(tmp_path / "w", (0, 10))
    partial.save()
    partial.close()
    (tmp_path / "w").unlink()
    assert Partial(tmp_path / "w").present == 0


def test_nothing_is_left_of_what_is_discarded(tmp_path: Path) -> None:
    partial = _partial(tmp_path / "w", (0, 10))
    partial.save()
    partial.discard()
    assert list(tmp_path.iterdir()) == []
    assert (partial.present, partial.hashed, partial.origin) == (0, 0, None)


def test_no_secret_is_written_down(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "w")
    partial.belong_to(Origin.of("https://me:hunter2@host/w?token=hunter3", None, None))
    partial.write(0, b"x")
    partial.save()
    partial.close()
    assert "hunter" not in notes_of(tmp_path / "w").read_text()


writes = st.lists(
    st.tuples(st.integers(0, 90), st.integers(1, 10)).map(lambda pair: (pair[0], sum(pair)))
)


@given(writes, st.integers(0, 30))
def test_spans_are_what_was_written(spans: list[tuple[int, int]], save_after: int) -> None:
    """Whatever is written in whatever order, and whenever it is written down."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "w"
        partial = Partial(path)
        partial.belong_to(ORIGIN)
        written: set[int] = set()
        saved: set[int] = set()
        for number, (start, stop) in enumerate(spans):
            partial.write(start, bytes(range(start, stop)))
            written |= set(range(start, stop))
            if number == save_after:
                partial.save()
                saved = set(written)
        missing = {at for start, stop in partial.gaps(100) for at in range(start, stop)}
        assert missing == set(range(100)) - written
        assert partial.present == len(written)
        prefix = partial.prefix
        while partial.hashed < prefix:
            partial.hash_on(prefix, bytearray(7))
        assert partial.hexdigest() == hashlib.sha256(bytes(range(prefix))).hexdigest()
        partial.close()
        again = Partial(path)
        assert again.present == len(saved)
        assert all(path.read_bytes()[at] == at for at in saved)
