"""Golden examples: which answers count as the same, and what is said of others."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.archive.seal import Example
from hatch_mar.errors import GoldenError
from hatch_mar.model.golden import find_difference

if TYPE_CHECKING:
    from tests.support.models import Load, MakeModel

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


def differ(expected: Any, got: Any, rtol: float = 0.0, atol: float = 0.0) -> str | None:
    wanted, answer = (json.dumps(value).encode() for value in (expected, got))
    return find_difference(wanted, answer, rtol=rtol, atol=atol)


@given(json_values)
def test_an_answer_is_like_itself(value: Any) -> None:
    assert differ(value, value) is None


def test_layout_does_not_count() -> None:
    assert find_difference(b'{"a":1,"b":2}', b'{\n "b": 2, "a": 1}', rtol=0, atol=0) is None


@pytest.mark.parametrize(
    ("expected", "got"),
    [(1.0, 1.00009), (0.0, 5e-7), ([1, {"a": 2.0}], [1, {"a": 2.0001}]), (1, 1.0)],
)
def test_numbers_may_be_a_little_off(expected: Any, got: Any) -> None:
    assert differ(expected, got, rtol=1e-4, atol=1e-6) is None


@pytest.mark.parametrize(
    ("expected", "got", "said"),
    [
        ({"p": [0.5, 0.25]}, {"p": [0.5, 0.26]}, "at $.p[1]: expected 0.25, got 0.26"),
        ([1, 2], [1], "at $: expected 2 items, got 1"),
        ({"a": 1}, {"b": 1}, "at $: expected the keys ['a'], got ['b']"),
        ({"a": "x"}, {"a": "y"}, "at $.a: expected 'x', got 'y'"),
        ({"a": 1}, {"a": True}, "at $.a: expected 1, got True"),
        ([1], {"a": 1}, "at $: expected [1], got {'a': 1}"),
        (None, 0, "at $: expected None, got 0"),
        (float("nan"), 1.0, "at $: expected nan, got 1.0"),
        (float("inf"), float("-inf"), "at $: expected inf, got -inf"),
    ],
)
def test_a_difference_is_named_with_its_place(expected: Any, got: Any, said: str) -> None:
    assert differ(expected, got, rtol=1e-4, atol=1e-6) == said


def test_what_is_not_json_is_compared_by_bytes() -> None:
    assert find_difference(b"\x89PNG", b"\x89PNG", rtol=1, atol=1) is None
    said = find_difference(b"\x89PNG", b"\x89JPG", rtol=1, atol=1)
    assert said == r"expected b'\x89PNG', got b'\x89JPG'"


def test_json_was_expected() -> None:
    assert find_difference(b"1", b"one", rtol=1, atol=1) == "expected JSON, got b'one'"


def test_a_long_answer_is_cut() -> None:
    said = differ("a" * 1000, "b" * 1000)
    assert said is not None
    assert len(said) < 300


ECHO = """
def handle(data, context):
    return data and [row["body"] for row in data]
"""


def example(policy: Any = "fail", **more: Any) -> dict[str, Any]:
    return Example(
        input="MAR-INF/examples/in.json",
        output="MAR-INF/examples/out.json",
        content_type="application/json",
        policy=policy,
        **more,
    ).as_dict()


def files(expected: bytes, handler: str = ECHO) -> dict[str, Any]:
    return {
        "handler.py": handler,
        "MAR-INF/examples/in.json": b"[1.0, 2.0]",
        "MAR-INF/examples/out.json": expected,
    }


def test_a_model_that_answers_as_recorded_passes(make_model: MakeModel, load_model: Load) -> None:
    load_model(make_model(files(b"[1, 2.00001]"), examples=[example()])).check_examples()


def test_a_model_that_answers_otherwise_does_not(make_model: MakeModel, load_model: Load) -> None:
    model = load_model(make_model(files(b"[1, 3]"), examples=[example()]))
    with pytest.raises(GoldenError) as caught:
        model.check_examples()
    assert str(caught.value) == (
        "golden example 'MAR-INF/examples/in.json': at $[1]: expected 3, got 2.0"
    )


def test_an_example_may_only_warn(
    make_model: MakeModel, load_model: Load, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(make_model(files(b"[1, 3]"), examples=[example("warn")]))
    with caplog.at_level(logging.WARNING, "hatch_mar.model"):
        model.check_examples()
    assert "at $[1]: expected 3, got 2.0" in caplog.text


def test_a_handler_that_raises_is_named_with_its_traceback(
    make_model: MakeModel, load_model: Load
) -> None:
    broken = "def handle(data, context):\n    return data and data[0]['missing']\n"
    model = load_model(make_model(files(b"[1, 3]", broken), examples=[example()]))
    with pytest.raises(GoldenError, match="answered 503 Prediction failed") as caught:
        model.check_examples()
    assert "KeyError: 'missing'" in caught.value.traceback
