"""Every kind of request and of handler result: TorchServe's reply and ours, field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.differences import assert_same_reply
from tests.support.exchange import Call, Pair

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.torchserve import TorchServeHome

JSON = ("Content-Type", "application/json")
TEXT = ("Content-Type", "text/plain")
FORM = ("Content-Type", "application/x-www-form-urlencoded")
MULTIPART = ("Content-Type", "multipart/form-data; boundary=frontier")
PNG = b"\x89PNG\r\n\x1a\n\x00not really"


def _post(*headers: tuple[str, str], body: bytes | None = b"", path: str = "") -> Call:
    return Call(path=f"/predictions/echo{path}", headers=headers, body=body)


def _wish(name: str) -> Call:
    return _post(("X-Do", name), JSON, body=b"{}")


def _multipart(*parts: tuple[str, bytes]) -> Call:
    """Build a form of `(part headers, content)` pairs."""
    lines = [
        b"--frontier\r\n" + headers.encode() + b"\r\n\r\n" + content + b"\r\n"
        for headers, content in parts
    ]
    return _post(MULTIPART, body=b"".join(lines) + b"--frontier--\r\n")


def _named(name: str, *, filename: str = "", content_type: str = "") -> str:
    disposition = f'Content-Disposition: form-data; name="{name}"'
    disposition += f'; filename="{filename}"' if filename else ""
    return disposition + (f"\r\nContent-Type: {content_type}" if content_type else "")


BODIES = {
    "json-object": _post(JSON, body=b'{"x": [1, 2.5, null, true], "\\u00e9": "y"}'),
    "json-with-charset": _post(("Content-Type", "application/json; charset=utf-8"), body=b"[1]"),
    "json-in-capitals": _post(("Content-Type", "Application/JSON"), body=b"[1]"),
    "json-number": _post(JSON, body=b"7"),
    "json-text": _post(JSON, body=b'"seven"'),
    "json-null": _post(JSON, body=b"null"),
    "json-broken": _post(JSON, body=b'{"x": '),
    "json-empty": _post(JSON, body=b""),
    "json-nan": _post(JSON, body=b"[NaN, Infinity]"),
    "json-with-bom": _post(JSON, body=b"\xef\xbb\xbf[1]"),
    "json-not-utf8": _post(JSON, body=b'"\xff"'),
    "json-big-integer": _post(JSON, body=b"[123456789012345678901234567890]"),
    "json-dialect": _post(("Content-Type", "application/vnd.api+json"), body=b"[1]"),
    "text": _post(TEXT, body="zw\u00f6lf".encode()),
    "text-with-charset": _post(("Content-Type", "text/csv; charset=latin-1"), body=b"a;b"),
    "text-not-utf8": _post(TEXT, body=b"\xff\xfe"),
    "raw-without-type": _post(body=PNG),
    "raw-octets": _post(("Content-Type", "application/octet-stream"), body=PNG),
    "raw-image": _post(("Content-Type", "image/png"), body=PNG),
    "no-body": _post(body=None),
    "type-in-lower-case": _post(("content-type", "application/json"), body=b"[1]"),
    "form": _post(FORM, body=b"a=1&b=two"),
    "form-twice": _post(FORM, body=b"a=1&a=2"),
    "form-escaped": _post(FORM, body=b"a+b=%7E+%C3%A9"),
    "form-empty-value": _post(FORM, body=b"a=&b=2"),
    "form-without-equals": _post(FORM, body=b'{"x":1}'),
    "form-empty": _post(FORM, body=b""),
    "multipart-file": _multipart((_named("data", filename="a.png", content_type="image/png"), PNG)),
    "multipart-file-json": _multipart(
        (_named("data", filename="a.json", content_type="application/json"), b'{"x": 1}')
    ),
    "multipart-file-text": _multipart(
        (_named("data", filename="a.txt", content_type="text/plain"), b"seven")
    ),
    "multipart-file-without-type": _multipart((_named("data", filename="a.bin"), b"seven")),
    "multipart-field": _multipart((_named("data"), b"seven")),
    "multipart-field-json": _multipart((_named("data", content_type="application/json"), b"[1]")),
    "multipart-several": _multipart(
        (_named("one", filename="a", content_type="text/plain"), b"1"),
        (_named("two"), b"2"),
    ),
    "multipart-twice": _multipart((_named("data"), b"1"), (_named("data"), b"2")),
    "multipart-empty-part": _multipart((_named("data"), b"")),
    "chunked": Call(path="/predictions/echo", headers=[JSON], chunks=[b'{"x"', b": 1}"]),
    "too-large": _post(("Content-Type", "application/octet-stream"), body=b"x" * 6553501),
}

HEADERS = {
    "headers-as-sent": _post(
        ("X-Do", "headers"), ("X-One", "1"), ("x-TWO", "2"), ("Accept", "*/*"), JSON, body=b"{}"
    ),
    "header-in-other-case": _post(("X-Do", "headers"), ("x-one", "1"), JSON, body=b"{}"),
    "header-twice": _post(("X-Do", "headers"), ("X-One", "1"), ("X-One", "2"), JSON, body=b"{}"),
    "headers-of-a-form": _post(("X-Do", "headers"), FORM, body=b"a=1&b=2"),
    "request-id-of-client": _post(("x-request-id", "mine"), JSON, body=b"{}"),
    "request-id-for-handler": _wish("id"),
    "connection-close": _post(("Connection", "close"), JSON, body=b"{}"),
    "cookie": _post(("Cookie", "a=b"), JSON, body=b"{}"),
}

PATHS = {
    "version": _post(JSON, body=b"{}", path="/1.0"),
    "url-path": _post(("X-Do", "headers"), JSON, body=b"{}", path="/1.0/a/b/c"),
    "url-path-escaped": _post(("X-Do", "headers"), JSON, body=b"{}", path="/1.0/a%20b"),
    "trailing-slash": _post(JSON, body=b"{}", path="/"),
    "query": _post(JSON, body=b"{}", path="?x=1&y=2"),
    "query-with-version": _post(JSON, body=b"{}", path="/1.0?x=1"),
    "unknown-version": _post(JSON, body=b"{}", path="/9.9"),
    "unknown-model": Call(path="/predictions/nobody", body=b"{}"),
    "unknown-model-and-version": Call(path="/predictions/nobody/9.9", body=b"{}"),
    "no-model": Call(path="/predictions", body=b"{}"),
    "no-model-slash": Call(path="/predictions/", body=b"{}"),
    "escaped-name": Call(path="/predictions/%65cho", headers=[JSON], body=b"{}"),
    "name-in-capitals": Call(path="/predictions/Echo", headers=[JSON], body=b"{}"),
    "explanations": Call(path="/explanations/echo", headers=[("X-Do", "headers")], body=b"{}"),
    "nowhere": Call(method="GET", path="/nowhere"),
    "nowhere-post": Call(path="/nowhere/at/all", body=b"{}"),
    "ping": Call(method="GET", path="/ping"),
    "ping-post": Call(path="/ping", body=b""),
} | {
    method.lower(): Call(method=method, path="/predictions/echo")
    for method in ("GET", "PUT", "DELETE", "PATCH")
}

RESULTS = {
    name: _wish(name)
    for name in (
        "fail",
        "refuse",
        "refuse-404",
        "refuse-413",
        "refuse-422",
        "refuse-200",
        "cuda",
        "memory",
        "bytes",
        "bytearray",
        "text",
        "empty-text",
        "dict",
        "list",
        "empty-dict",
        "number",
        "real",
        "nan",
        "none",
        "true",
        "huge",
        "number-keys",
        "tuple-inside",
        "not-json",
        "a-set",
        "nothing",
        "a-text",
        "a-dict",
        "a-tuple",
        "too-many",
        "too-few",
        "status-201",
        "status-204",
        "status-418",
        "status-503",
        "all-status",
        "header",
        "type",
        "context",
    )
}

CALLS = {
    f"{group}-{name}": call
    for group, calls in {
        "body": BODIES,
        "header": HEADERS,
        "path": PATHS,
        "result": RESULTS,
    }.items()
    for name, call in calls.items()
}


@pytest.fixture(scope="module")
def store(
    torchserve_home: TorchServeHome, handlers: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    store = tmp_path_factory.mktemp("store")
    torchserve_home.make_archive("echo", store, handler=str(handlers / "echo" / "handler.py"))
    return store


@pytest.mark.parametrize("case", CALLS)
def test_same_reply(pair: Pair, case: str) -> None:
    theirs, ours = pair.ask(CALLS[case])
    assert_same_reply(case, theirs, ours)
