"""The routes that predict through the ASGI application."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx
import pytest

from hatch_mar.api.app import create_app
from hatch_mar.archive.read import open_archive
from hatch_mar.serve import Service, ServiceSettings, make_root, prepare, remove_rundirs
from hatch_mar.weights.cache import Cache
from tests.support.wire import connect, request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.runner import Runner

JSON = {"Content-Type": "application/json"}
LIMIT = 6_553_500


@pytest.mark.parametrize(
    "path",
    [
        "/explanations/mirror",
        "/explanations/mirror/2.0",
        "/v1/models/mirror:predict",
        "/v1/models/mirror:explain",
        "/v2/models/mirror/infer",
        "/v2/models/mirror/explain",
        "/models/mirror/invoke",
        "/mirror/predict",
        "/mirror/2.0/predict",
        "/predictions/mirror?through=the-lane",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
def test_path_predicts(server: Runner, path: str, method: str) -> None:
    answer = httpx.request(method, server.url + path, content=b"[1]", headers=JSON)
    assert answer.status_code == 200
    assert answer.json()["row"]["body"] == ["list", [1]]
    assert "content-type" not in answer.headers


@pytest.mark.parametrize("path", ["/explanations/mirror", "/v1/models/mirror:explain"])
def test_explain_header(server: Runner, path: str) -> None:
    answer = httpx.post(server.url + path, content=b"x")
    assert answer.json()["headers"]["explain"] == "True"


@pytest.mark.parametrize(("path", "phrase"), [("/v1/models/odd:predict", ""), ("/odd/predict", "")])
def test_an_answer_without_content_has_no_body(server: Runner, path: str, phrase: str) -> None:
    order = {"text": "x", "status": 204}
    with connect(server.url) as wire:
        body = json.dumps(order).encode()
        wire.send(request("POST", path, body, JSON) * 2)
        for reply in (wire.read(), wire.read()):
            assert reply.head.startswith(f"HTTP/1.1 204 {phrase}\r\n".encode())
            assert "content-length" not in reply.headers


def test_header_names_reach_the_handler_as_sent(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(request("POST", "/mirror/predict", b"x", {"X-MiXeD": "Value"}))
        assert b'"X-MiXeD": "Value"' in wire.read().body


def test_query_is_ignored(server: Runner) -> None:
    answer = httpx.post(f"{server.url}/v1/models/mirror:predict?a=b", content=b"x")
    assert list(answer.json()["row"]) == ["body"]


def test_query_of_an_invocation_becomes_rows(server: Runner) -> None:
    answer = httpx.post(f"{server.url}/invocations?model_name=mirror&a=b", content=b"x")
    assert answer.json()["row"] == {
        "model_name": ["bytearray", "mirror"],
        "a": ["bytearray", "b"],
        "body": ["bytearray", "x"],
    }


def test_invocation_names_its_model_in_a_form(server: Runner) -> None:
    answer = httpx.post(f"{server.url}/invocations", data={"model_name": "mirror", "a": "b"})
    assert answer.json()["row"]["a"] == ["bytearray", "b"]


def test_invocation_without_a_name_where_several_are_served(server: Runner) -> None:
    answer = httpx.post(f"{server.url}/invocations", content=b"x")
    assert answer.status_code == 400
    assert answer.json()["message"] == "Parameter model_name is required."


def test_invocation_of_the_only_model(odd: Runner) -> None:
    answer = httpx.post(f"{odd.url}/invocations", json={"text": "only"})
    assert answer.text == "only"


def test_files_and_fields_of_a_form(server: Runner) -> None:
    answer = httpx.post(
        f"{server.url}/predictions/mirror",
        data={"note": "n"},
        files={"data": ("a.json", b'{"x": 1}', "application/json"), "raw": ("b", b"\xff")},
    )
    assert answer.json()["row"] == {
        "note": ["bytearray", "n"],
        "data": ["dict", {"x": 1}],
        "raw": ["bytearray", "\xff"],
    }


def test_unknown_model(server: Runner) -> None:
    answer = httpx.post(f"{server.url}/nobody/predict")
    assert answer.status_code == 404
    assert answer.json()["type"] == "ModelNotFoundException"
    assert answer.headers["connection"] == "close"


def test_body_above_the_limit(server: Runner) -> None:
    answer = httpx.post(f"{server.url}/odd/predict", content=bytes(LIMIT + 1))
    assert answer.status_code == 413
    assert answer.content == b""


def test_malformed_form(server: Runner) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    answer = httpx.post(f"{server.url}/odd/predict", content=b"", headers=headers)
    assert answer.json()["type"] == "BadRequestException"


def test_any_asgi_server_can_host_the_application(models: list[Path]) -> None:
    async def scenario() -> list[httpx.Response]:
        service = Service(settings=ServiceSettings())
        root = make_root()
        try:
            with open_archive(models[0]) as archive:
                deployment = prepare(archive, root=root, cache=Cache())
            await service.register(deployment)
            transport = httpx.ASGITransport(create_app(service))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return [
                    await client.post("/predictions/mirror", content=b"x"),
                    await client.get("/readyz"),
                    await client.get("/models"),
                ]
        finally:
            await service.close(timeout=10)
            remove_rundirs(root)

    prediction, readyz, management = asyncio.run(scenario())
    assert prediction.json()["row"] == {"body": ["bytearray", "x"]}
    assert readyz.status_code == 200
    assert management.status_code == 404
