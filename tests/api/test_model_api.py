"""Models that come and go through the management port, and what stays of them."""

from __future__ import annotations

import http.server
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.archives import write_mar
from tests.support.runner import Runner, start_runner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HANDLER = """
    def handle(data, context):
        return ["fine"] * len(data or [])
"""
BROKEN = "raise RuntimeError('not today')\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve archives over HTTP."""
    directory = tmp_path_factory.mktemp("site")
    write_mar(directory, "far", HANDLER)
    write_mar(directory, "broken", BROKEN)
    (directory / "text.mar").write_text("no archive")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    write_mar(store, "near", HANDLER)
    return store


@pytest.fixture(scope="module")
def runner(store: Path, site: str) -> Iterator[Runner]:
    allowed = site.replace(".", r"\.") + "/.*"
    flags = ("--model-store", str(store), "--enable-model-api", "--allowed-url", allowed)
    with start_runner(*flags) as runner:
        assert runner.exited() is None, runner.output()
        yield runner


@pytest.fixture
def models(runner: Runner) -> Iterator[httpx.Client]:
    """Talk to the management port; nothing is served before or after."""
    with httpx.Client(base_url=runner.management_url, timeout=30) as client:
        assert client.get("/models").json() == {"models": []}
        yield client
        for model in client.get("/models").json()["models"]:
            client.delete(f"/models/{model['modelName']}").raise_for_status()


def _store(store: Path) -> list[str]:
    return sorted(path.name for path in store.iterdir())


def test_a_runner_may_begin_with_nothing(runner: Runner) -> None:
    assert httpx.get(f"{runner.url}/readyz").status_code == 200


def test_a_model_of_the_store_comes_answers_and_goes(
    runner: Runner, models: httpx.Client, store: Path
) -> None:
    models.post("/models?url=near-1.0.mar&initial_workers=1").raise_for_status()
    assert httpx.post(f"{runner.url}/predictions/near", content=b"").text == "fine"
    assert models.get("/v1/models/near").json() == {"name": "near", "ready": True}
    models.delete("/models/near").raise_for_status()
    assert httpx.post(f"{runner.url}/predictions/near", content=b"").status_code == 404
    assert _store(store) == ["near-1.0.mar"]


def test_a_fetched_archive_goes_with_its_model(
    models: httpx.Client, store: Path, site: str
) -> None:
    models.post(f"/models?url={site}/far-1.0.mar&initial_workers=1").raise_for_status()
    assert _store(store) == ["far-1.0.mar", "near-1.0.mar"]
    again = models.post(f"/models?url={site}/far-1.0.mar")
    assert again.json()["message"] == "Model file already exists far-1.0.mar"
    models.delete("/models/far").raise_for_status()
    assert _store(store) == ["near-1.0.mar"]


@pytest.mark.parametrize(
    ("file", "refusal"),
    [
        ("text.mar", (400, "InvalidModelException")),
        ("none.mar", (400, "DownloadArchiveException")),
        ("broken-1.0.mar?", (500, "InternalServerException")),
    ],
)
def test_what_is_refused_leaves_nothing(
    models: httpx.Client, store: Path, site: str, file: str, refusal: tuple[int, str]
) -> None:
    answer = models.post("/models", params={"url": f"{site}/{file}", "initial_workers": 1})
    assert (answer.status_code, answer.json()["type"]) == refusal
    assert _store(store) == ["near-1.0.mar"]
    assert models.get("/models").json() == {"models": []}


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.mar", "file:///etc/passwd", "s3://b/x.mar"])
def test_what_the_operator_did_not_allow_is_not_fetched(models: httpx.Client, url: str) -> None:
    answer = models.post("/models", params={"url": url})
    assert answer.status_code == 404
    assert answer.json()["message"].startswith("Given URL ")


def test_asynchronously(models: httpx.Client) -> None:
    answer = models.post("/models?url=near-1.0.mar&initial_workers=1&synchronous=false")
    assert (answer.status_code, answer.json()["status"]) == (202, "Processing worker updates...")
    assert models.get("/models/near").status_code == 200


@pytest.mark.parametrize("body", ["{", "[]", "[" * 100_000])
def test_a_json_body_that_says_nothing(models: httpx.Client, body: str) -> None:
    headers = {"content-type": "application/json"}
    answer = models.post("/models", content=body.encode(), headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (400, "BadRequestException")


def test_a_body_of_parameters_is_no_place_for_an_archive(models: httpx.Client) -> None:
    body = json.dumps({"url": "x" * (2 << 20)}).encode()
    headers = {"content-type": "application/json"}
    assert models.post("/models", content=body, headers=headers).status_code == 413


@pytest.mark.parametrize("name", ["a/b", "a\x00", "..", "a\nb", "x" * 201])
def test_a_name_that_no_path_could_hold(models: httpx.Client, name: str) -> None:
    answer = models.post("/models", params={"url": "near-1.0.mar", "model_name": name})
    assert (answer.status_code, answer.json()["type"]) == (400, "InvalidModelException")


def test_fewer_workers_than_none(models: httpx.Client) -> None:
    answer = models.post("/models?url=near-1.0.mar&initial_workers=-5")
    assert (answer.status_code, answer.json()["type"]) == (400, "BadRequestException")


def test_scaling_takes_turns(models: httpx.Client) -> None:
    models.post("/models?url=near-1.0.mar&initial_workers=1").raise_for_status()

    def scale(workers: int) -> int:
        url = f"/models/near?min_worker={workers}&synchronous=true"
        return models.put(url).status_code

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(scale, [3, 0, 2, 1, 0, 2])) == {200}
    assert scale(0) == scale(1) == 200
    (found,) = models.get("/models/near").json()
    assert [worker["status"] for worker in found["workers"]] == ["READY"]


def test_one_version_is_registered_once(models: httpx.Client) -> None:
    def register(_: int) -> int:
        url = "/models?url=near-1.0.mar&initial_workers=1&synchronous=false"
        return models.post(url).status_code

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(register, range(6))) == [202, *[409] * 5]


def test_values_of_the_caller_reach_the_model(models: httpx.Client) -> None:
    values = {"batch_size": 4, "max_batch_delay": 7, "response_timeout": 9, "startup_timeout": 8}
    models.post("/models", params={"url": "near-1.0.mar", **values}).raise_for_status()
    (found,) = models.get("/models/near").json()
    keys = ("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")
    assert [found[key] for key in keys] == list(values.values())


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/models?url=x.mar"), ("DELETE", "/models/m")]
)
def test_control_is_off_unless_asked_for(store: Path, method: str, path: str) -> None:
    with start_runner(str(store / "near-1.0.mar")) as runner:
        answer = httpx.request(method, f"{runner.management_url}{path}")
    assert (answer.status_code, answer.json()["type"]) == (405, "MethodNotAllowedException")


def test_a_pattern_that_is_none() -> None:
    with start_runner("--enable-model-api", "--allowed-url", "[", wait="no") as runner:
        runner.process.wait(30)
        assert "'[' is not a regular expression" in runner.output()
