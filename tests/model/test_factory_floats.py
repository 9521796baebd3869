"""Lists of floats become the tensors that torch makes of them, only sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.model.factory import read_floats

if TYPE_CHECKING:
    from collections.abc import Iterator

torch: Any = pytest.importorskip("torch")

NUMBERS = st.floats() | st.integers(-(2**70), 2**70) | st.booleans()
ROWS = st.integers(0, 4).flatmap(
    lambda width: st.lists(st.lists(NUMBERS, min_size=width, max_size=width), max_size=3)
)


@pytest.fixture(params=["float32", "float64", "float16"])
def _default_dtype(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, request.param))
    yield
    torch.set_default_dtype(before)


def check(values: list[Any]) -> None:
    found = read_floats(values)
    if found is None:
        return
    expected = torch.as_tensor(values)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.numpy().tobytes() == expected.numpy().tobytes()


@pytest.mark.usefixtures("_default_dtype")
@given(
    st.lists(NUMBERS) | ROWS | st.lists(ROWS, max_size=2) | st.lists(NUMBERS | st.lists(NUMBERS))
)
def test_what_is_read_is_what_torch_reads(values: list[Any]) -> None:
    check(values)


@pytest.mark.parametrize(
    "values",
    [[0.5], [1, 0.5], [True, 0.5], [[0.5, 1.5]], [[[1], [2.5]]], [1e300, float("nan"), -0.0]],
    ids=repr,
)
def test_floats_are_read(values: list[Any]) -> None:
    assert read_floats(values) is not None
    check(values)


@pytest.mark.parametrize(
    "values",
    [[], [[]], [1, 2], [True], [[0.5], [0.5, 1.5]], [[0.5], 0.5], [0.5, None], ["0.5"], [0.5, 1j]],
    ids=repr,
)
def test_anything_else_is_left_to_torch(values: list[Any]) -> None:
    assert read_floats(values) is None


def test_numbers_that_no_float_holds_are_left_to_torch() -> None:
    assert read_floats([0.5, 10**400]) is None
