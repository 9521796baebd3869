"""Rows: what a handler finds in `data`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.model.protocol import Part, Request
from hatch_mar.model.rows import decode_value, make_headers, make_row

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(json_values)
def test_json_comes_back(value: Any) -> None:
    body = json.dumps(value).encode()
    assert decode_value(Part("body", "application/json", body)) == value


@given(st.text())
def test_text_comes_back(value: str) -> None:
    try:
        body = value.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate: no client can send it
    assert decode_value(Part("body", "text/plain", body)) == value


@given(st.binary())
def test_bytes_come_back_as_a_bytearray(value: bytes) -> None:
    row = decode_value(Part("body", "application/octet-stream", memoryview(value)))
    assert type(row) is bytearray
    assert row == value


@pytest.mark.parametrize("content_type", ["Application/JSON", "application/vnd.api+json", ""])
def test_only_the_exact_type_is_json(content_type: str) -> None:
    assert decode_value(Part("body", content_type, b"[1]")) == bytearray(b"[1]")


@pytest.mark.parametrize(
    "body", [b"{not json", b"\xff", b"[" * 200_000], ids=["syntax", "encoding", "depth"]
)
def test_what_is_not_json_stays_bytes(body: bytes) -> None:
    assert decode_value(Part("body", "application/json", body)) == bytearray(body)


def test_what_is_not_utf8_stays_bytes() -> None:
    assert decode_value(Part("body", "text/plain", b"\xff")) == bytearray(b"\xff")


def test_decoding_can_be_switched_off() -> None:
    request = Request(id="1", headers=(), parts=[Part("body", "application/json", b"[1]")])
    assert make_row(request, decode=False) == {"body": bytearray(b"[1]")}


def test_the_last_part_of_a_name_counts() -> None:
    parts = [Part("a", "", b"1"), Part("b", "text/plain", b"2"), Part("a", "", b"3")]
    row = make_row(Request(id="1", headers=(), parts=parts))
    assert row == {"a": bytearray(b"3"), "b": "2"}


def test_headers_are_the_clients_and_torchserves() -> None:
    request = Request(
        id="1",
        headers=[("X-Tag", "old"), ("X-Tag", "new")],
        parts=[Part("body", "image/png", b"")],
        url_path="a/b",
        explain=True,
    )
    assert make_headers(request) == {
        "X-Tag": "new",
        "explain": "True",
        "url_path": "a/b",
        "body": {"content-type": "image/png"},
    }


def test_a_describe_request_says_so() -> None:
    assert make_headers(Request(id="1", headers=(), parts=[], describe=True))["describe"] == "True"
