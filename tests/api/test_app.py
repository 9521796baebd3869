"""What all answers have in common, and which port answers what."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.support.runner import Runner

LOG_LINE = r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} - /127\.0\.0\.1:\d+ "%s" %d \d+$'


@pytest.mark.parametrize(
    "path", ["/ping", "/predictions/mirror", "/nothing", "/v1/models/nobody:predict"]
)
def test_headers_of_every_answer(server: Runner, path: str) -> None:
    answer = httpx.get(server.url + path)
    assert uuid.UUID(answer.headers["x-request-id"]).version == 4
    assert answer.headers["pragma"] == "no-cache"
    assert answer.headers["cache-control"] == "no-cache; no-store, must-revalidate, private"
    assert answer.headers["expires"] == "Thu, 01 Jan 1970 00:00:00 UTC"
    closes = answer.status_code >= 400
    assert answer.headers["connection"] == ("close" if closes else "keep-alive")
    assert "server" not in answer.headers
    assert "date" not in answer.headers


@pytest.mark.parametrize("path", ["/nothing", "/predictions", "/models", "/pong"])
def test_unknown_path(server: Runner, path: str) -> None:
    answer = httpx.get(server.url + path)
    assert answer.status_code == 404
    assert answer.text == (
        '{\n  "code": 404,\n  "type": "ResourceNotFoundException",\n'
        '  "message": "Requested resource is not found, please refer to API document."\n}\n'
    )


def test_known_path_with_another_method(server: Runner) -> None:
    answer = httpx.put(f"{server.management_url}/models")
    assert answer.status_code == 405
    assert answer.json() == {
        "code": 405,
        "type": "MethodNotAllowedException",
        "message": "Requested method is not allowed, please refer to API document.",
    }


def test_each_port_has_its_own_api(server: Runner) -> None:
    paths = {
        "/ping": server.url,
        "/predictions/mirror": server.url,
        "/models": server.management_url,
        "/metrics": server.metrics_url,
    }
    for base in set(paths.values()):
        for path, home in paths.items():
            expected = 200 if base == home else 404
            assert httpx.get(base + path).status_code == expected, (base, path)


def test_metrics(server: Runner) -> None:
    httpx.post(f"{server.url}/predictions/mirror", content=b"x")
    httpx.post(f"{server.url}/predictions/nobody", content=b"x")
    answer = httpx.get(f"{server.metrics_url}/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    for status in ("2XX", "4XX"):
        found = re.search(
            rf'^Requests{status}{{Level="Host",Hostname=".*",}} (.*)$', answer.text, re.MULTILINE
        )
        assert found is not None
        assert float(found[1]) > 0
    assert 'ts_inference_requests_total{model_name="mirror",model_version="default",' in answer.text


def test_metrics_by_name(server: Runner) -> None:
    answer = httpx.get(f"{server.metrics_url}/metrics?name[]=Requests4XX")
    assert "Requests4XX{" in answer.text
    assert "Requests2XX" not in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/predictions/mirror/1.0/lane?a=b", 200),
        ("/mirror/1.0/predict?a=%20b", 200),
        ("/no", 404),
    ],
)
def test_access_log(odd: Runner, path: str, status: int) -> None:
    status = 404  # of a server that has no model of this name
    httpx.post(odd.url + path)
    odd.stop()
    line = LOG_LINE % (re.escape(f"POST {path} HTTP/1.1"), status)
    assert len(re.findall(line, odd.output(), re.MULTILINE)) == 1
