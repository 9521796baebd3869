"""Responses: what becomes of what a handler returns."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.model.context import RequestProcessor
from hatch_mar.model.responses import encode, make_responses

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text() | st.integers() | st.booleans() | st.none() | st.floats()
json_values = st.recursive(
    scalars,
    lambda children: (
        st.lists(children)
        | st.dictionaries(keys, children)
        | st.tuples(children, children)
        | st.just([])
        | st.just({})
    ),
    max_leaves=30,
)


@given(json_values)
def test_json_comes_back(value: Any) -> None:
    body = encode([value])
    assert json.loads(body) == json.loads(json.dumps([value])) or "NaN" in body.decode()


@pytest.mark.parametrize("value", [b"\x00\xff", bytearray(b"ab")])
def test_bytes_are_sent_as_they_are(value: bytes) -> None:
    assert encode(value) is value


def test_text_is_sent_in_utf8() -> None:
    assert encode("é") == "é".encode()


def test_a_tensor_is_sent_as_torch_saves_it() -> None:
    torch = pytest.importorskip("torch")
    loaded = torch.load(io.BytesIO(encode(torch.arange(3))), weights_only=True)
    assert loaded.tolist() == [0, 1, 2]


def answer(*outputs: Any, count: int | None = None) -> list[tuple[int, bytes, bool]]:
    processors = [RequestProcessor({}) for _ in range(len(outputs) if count is None else count)]
    responses = make_responses(list(outputs), processors)
    return [(response.status, bytes(response.body), response.error) for response in responses]


@pytest.mark.parametrize("outputs", [None, "text", ("a",), {"a": 1}, iter("a")])
def test_only_a_list_is_an_output(outputs: Any) -> None:
    (response,) = make_responses(outputs, [RequestProcessor({})])
    assert (response.status, response.error) == (503, True)
    assert response.body == b"Invalid model predict output"


def test_a_wrong_number_of_outputs_fails_the_batch() -> None:
    expected = (503, b"number of batch response mismatched", True)
    assert answer("a", count=2) == [expected, expected]


def looped() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


class Wayward(list[Any]):
    """A list that does not let itself be looked at."""

    def __iter__(self) -> Any:
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    "value",
    [{1, 2}, object(), {(1, 2): 3}, [b"bytes"], "\ud800", looped(), Wayward([1])],
    ids=["set", "object", "key", "bytes inside", "surrogate", "loop", "own class"],
)
def test_what_json_cannot_say_fails_alone(value: Any) -> None:
    bad = (503, b"Unsupported model output data type.", True)
    assert answer("good", value) == [(200, b"good", False), bad]


def test_status_and_headers_are_the_handlers() -> None:
    processor = RequestProcessor({})
    processor.report_status(202, "Queued")
    processor.add_response_property("Content-Type", "text/csv")
    processor.add_response_property("X-Rows", "3")
    (response,) = make_responses(["a,b"], [processor])
    assert (response.status, response.phrase) == (202, "Queued")
    assert response.content_type == "text/csv"
    assert response.headers == (("X-Rows", "3"),)


def test_there_is_no_content_type_by_default() -> None:
    (response,) = make_responses([{"a": 1}], [RequestProcessor({})])
    assert response.content_type is None
    assert response.phrase == ""
