from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from hatch_mar.model.cuda.buckets import (  # noqa: E402 - it needs torch
    NotInRowsError,
    change_tensors,
    choose_bucket,
    cut,
    fill,
    measure,
    pad,
    resolve_buckets,
    tensors_in,
)


class Found(NamedTuple):
    boxes: Any
    scores: Any


def rows(count: int, *shape: int) -> Any:
    size = count * int(torch.Size(shape).numel())
    return torch.arange(size, dtype=torch.float32).reshape(count, *shape)


@pytest.mark.parametrize(
    ("wanted", "batch_size", "buckets"),
    [
        (None, 8, ()),
        (True, 1, (1,)),
        (True, 8, (1, 2, 4, 8)),
        (True, 12, (1, 2, 4, 8, 12)),
        ((4, 1), 8, (1, 4, 8)),
        ((8, 64), 16, (8, 16)),
        ((16,), 16, (16,)),
    ],
)
def test_the_batch_size_is_the_last_bucket(
    wanted: Any, batch_size: int, buckets: tuple[int, ...]
) -> None:
    assert resolve_buckets(wanted, batch_size) == buckets


def test_the_next_bucket_holds_a_batch() -> None:
    chosen = [choose_bucket((1, 4, 8), length) for length in range(10)]
    assert chosen == [None, 1, 4, 4, 4, 8, 8, 8, 8, None]


def test_what_is_as_long_throughout_has_a_form() -> None:
    form = measure({"ids": rows(3, 7).long(), "mask": (rows(3), rows(3, 2))})
    assert form is not None
    assert form.length == 3
    assert form.shape == getattr(
        measure({"ids": rows(5, 7).long(), "mask": (rows(5), rows(5, 2))}), "shape", None
    )


@pytest.mark.parametrize(
    "other",
    [
        lambda: rows(3, 8),
        lambda: rows(3, 7).double(),
        lambda: (rows(3, 7),),
        lambda: {"x": rows(3, 7)},
        lambda: (rows(3, 7), rows(3, 7)),
    ],
)
def test_another_row_type_or_nesting_is_another_form(other: Any) -> None:
    form, another = measure(rows(3, 7)), measure(other())
    assert form is not None
    assert another is not None
    assert form.shape != another.shape


@pytest.mark.parametrize(
    "batch",
    [
        torch.tensor(3.0),
        [rows(2)],
        (rows(2), rows(3)),
        (rows(2), None),
        {},
        (),
        {"x": rows(2), "scale": 0.5},
        "text",
    ],
)
def test_other_things_have_none(batch: Any) -> None:
    assert measure(batch) is None


def test_padding_repeats_the_first_row() -> None:
    padded = pad((rows(2, 2), {"n": torch.tensor([5, 6])}), 4)
    assert padded[0].tolist() == [[0.0, 1.0], [2.0, 3.0], [0.0, 1.0], [0.0, 1.0]]
    assert padded[1]["n"].tolist() == [5, 6, 5, 5]


def test_a_full_batch_is_not_copied_without_need() -> None:
    batch = rows(4, 2)
    with torch.inference_mode():
        padded = pad(batch, 4)
        assert pad(padded, 4) is padded
    assert padded.is_inference()
    assert padded.equal(batch)


def test_every_part_of_an_output_is_cut() -> None:
    output = OrderedDict(
        logits=rows(4, 3), hidden=(rows(4), None), found=[Found(1, 2), Found(3, 4), None, None]
    )
    kept = cut(output, 4, 2)
    assert isinstance(kept, OrderedDict)
    assert kept["logits"].shape == (2, 3)
    assert kept["hidden"][0].tolist() == [0.0, 1.0]
    assert kept["hidden"][1] is None
    assert kept["found"] == [Found(1, 2), Found(3, 4)]
    assert isinstance(cut(Found(rows(4), rows(4)), 4, 1), Found)


@pytest.mark.parametrize(
    "output", [rows(3), torch.tensor(1.0), (rows(4), 0.5), {}, None, "text", [1, 2, 3]]
)
def test_an_output_that_is_not_in_rows_is_found_out(output: Any) -> None:
    with pytest.raises(NotInRowsError):
        cut(output, 4, 2)


@given(st.integers(1, 9), st.integers(0, 9))
def test_a_filled_buffer_is_a_padded_batch(length: int, more: int) -> None:
    batch = {"x": rows(length, 2), "y": (rows(length, 1, 2),)}
    buffers = change_tensors(pad(batch, length + more), torch.zeros_like)
    fill(buffers, batch)
    for found, wanted in zip(
        tensors_in(buffers), tensors_in(pad(batch, length + more)), strict=True
    ):
        assert found.equal(wanted)
