"""Heads and bodies as TorchServe writes them."""

from __future__ import annotations

import json

import pytest

from hatch_mar.api.answers import (
    Answer,
    answer_error,
    answer_response,
    make_error,
    make_json,
    render_head,
    render_plain_head,
)
from hatch_mar.errors import ServiceUnavailableError
from hatch_mar.serve import Response

HEAD = (
    "x-request-id: ID\r\n"
    "Pragma: no-cache\r\n"
    "Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
    "Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)


def answer(**fields: object) -> Answer:
    return answer_response(Response(status=200, body=b"x", **fields), 1000)  # type: ignore[arg-type]


def test_plain_head_is_the_general_one_in_short() -> None:
    general = render_head(Answer(status=200, body=b"12345"), "ID", keep_alive=True)
    assert render_plain_head("ID", 5) == general
    assert general.decode() == (
        f"HTTP/1.1 200 \r\n{HEAD}content-length: 5\r\nconnection: keep-alive\r\n\r\n"
    )


def test_error_body() -> None:
    error = make_error(404, "ModelNotFoundException", "Model not found: x")
    assert error.body == (
        b'{\n  "code": 404,\n  "type": "ModelNotFoundException",\n'
        b'  "message": "Model not found: x"\n}\n'
    )
    assert error.closes


def test_error_head() -> None:
    head = render_head(make_error(503, "X", "m"), "ID", keep_alive=False).decode()
    assert head.startswith(
        f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n{HEAD}"
    )
    assert head.endswith("\r\nconnection: close\r\n\r\n")


def test_retry_after() -> None:
    error = answer_error(ServiceUnavailableError("full", retry_after=3))
    assert ("Retry-After", "3") in error.headers


def test_worker_error_is_torchserves_error_body() -> None:
    error = answer(error=True)
    assert json.loads(bytes(error.body)) == {
        "code": 200,
        "type": "InternalServerException",
        "message": "x",
    }


def test_response_above_the_limit() -> None:
    error = answer_response(Response(status=200, body=b"12345"), 4)
    assert error.status == 500
    assert b"5 bytes" in bytes(error.body)


def test_headers_of_the_handler() -> None:
    made = answer(headers=[("X-Mine", "1"), ("Content-Length", "99"), ("Connection", "x")])
    assert list(made.headers) == [("X-Mine", "1")]


def test_content_type_header_replaces_the_content_type() -> None:
    made = answer(content_type="a/b", headers=[("Content-Type", "c/d")])
    head = render_head(made, "ID", keep_alive=True)
    assert b"a/b" not in head
    assert b"Content-Type: c/d\r\n" in head


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": [("X", "a\r\nSet-Cookie: b")]},
        {"headers": [("X: y\r\nZ", "a")]},
        {"headers": [("", "a")]},
        {"headers": [("X", "\u20ac")]},
        {"content_type": "a\nb"},
        {"phrase": "OK\r\nX: y"},
    ],
)
def test_nothing_breaks_out_of_the_head(fields: dict[str, object]) -> None:
    assert answer(**fields).status == 500


@pytest.mark.parametrize("status", [-1, 0, 100, 1000])
def test_no_status_at_all(status: int) -> None:
    assert answer_response(Response(status=status, body=b""), 10).status == 500


def test_no_content_has_no_length() -> None:
    head = render_head(Answer(status=204, body=b""), "ID", keep_alive=True)
    assert b"content-length" not in head


def test_text_that_has_no_utf8_is_json_all_the_same() -> None:
    value = {"modelName": "\ud800", "modelUrl": "é"}
    assert json.loads(bytes(make_json(value).body)) == value
