"""What a client sent becomes parts."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.api.rows import read_parts, read_query, read_single
from hatch_mar.errors import BadRequestError

FORM = "application/x-www-form-urlencoded"
_NAMES = st.text(st.characters(codec="utf-8", exclude_characters='"\r\n\\'), min_size=1)


def as_triples(content_type: str, body: bytes) -> list[tuple[str, str, bytes]]:
    return [
        (part.name, part.content_type, bytes(part.data)) for part in read_parts(content_type, body)
    ]


def multipart(*parts: tuple[str, bytes], boundary: str = "xyz") -> tuple[str, bytes]:
    """Return content type and body of a form of (headers, data) parts."""
    body = b"".join(
        f"--{boundary}\r\n{headers}\r\n\r\n".encode() + data + b"\r\n" for headers, data in parts
    )
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


@pytest.mark.parametrize(
    ("content_type", "media_type"),
    [
        ("application/json", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("Image/PNG ;x=1", "Image/PNG"),
        ("", ""),
    ],
)
def test_any_other_body_is_one_part(content_type: str, media_type: str) -> None:
    assert as_triples(content_type, b"\x00\xff") == [("body", media_type, b"\x00\xff")]


@pytest.mark.parametrize("content_type", [FORM, "Multipart/Form-Data; boundary=x"])
def test_forms_are_not_single(content_type: str) -> None:
    assert read_single(content_type) is None


def test_json_sent_as_a_form_is_an_empty_row() -> None:
    assert as_triples(FORM, b'{"x": 1}') == []


def test_last_of_a_repeated_field_wins() -> None:
    assert as_triples(FORM, b"a=1&b=2&a=3") == [("a", "", b"3"), ("b", "", b"2")]


def test_urlencoded_bytes_stay_bytes() -> None:
    assert as_triples(FORM, b"a=%ff%00+x") == [("a", "", b"\xff\x00 x")]


@given(st.dictionaries(st.text(min_size=1), st.binary()))
def test_urlencoded_round_trip(fields: dict[str, bytes]) -> None:
    body = urlencode(fields).encode()
    assert as_triples(FORM, body) == [(name, "", value) for name, value in fields.items()]


def test_query_becomes_parts() -> None:
    assert [(part.name, part.data) for part in read_query(b"model_name=m&k=v%20w&flag")] == [
        ("model_name", b"m"),
        ("k", b"v w"),
    ]


def test_multipart_file_keeps_its_type_without_parameters() -> None:
    head = (
        'Content-Disposition: form-data; name="data"; filename="a.json"\r\n'
        "Content-Type: application/json; charset=utf-8"
    )
    assert as_triples(*multipart((head, b"{}"))) == [("data", "application/json", b"{}")]


def test_multipart_file_without_a_type_is_binary() -> None:
    head = 'Content-Disposition: form-data; name="data"; filename="a"'
    assert as_triples(*multipart((head, b"x"))) == [("data", "application/octet-stream", b"x")]


def test_multipart_field_loses_its_type() -> None:
    head = 'Content-Disposition: form-data; name="data"\r\nContent-Type: application/json'
    assert as_triples(*multipart((head, b"{}"))) == [("data", "", b"{}")]


@given(st.dictionaries(_NAMES, st.binary(), min_size=1))
def test_multipart_round_trip(fields: dict[str, bytes]) -> None:
    content_type, body = multipart(
        *(
            (f'Content-Disposition: form-data; name="{name}"', value)
            for name, value in fields.items()
        ),
        boundary="0123456789abcdef-a-boundary-nobody-has-in-their-data",
    )
    assert as_triples(content_type, body) == [(name, "", value) for name, value in fields.items()]


def test_multipart_without_boundary() -> None:
    with pytest.raises(BadRequestError, match="boundary"):
        read_parts("multipart/form-data", b"")


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_multipart_cut_off(cut: int) -> None:
    content_type, body = multipart(('Content-Disposition: form-data; name="a"', b"12345"))
    with pytest.raises(BadRequestError, match="Malformed"):
        read_parts(content_type, body[: -8 - cut])


def test_multipart_with_too_many_parts() -> None:
    part = ('Content-Disposition: form-data; name="a"', b"")
    with pytest.raises(BadRequestError, match="more than 1000 parts"):
        read_parts(*multipart(*[part] * 1001))
