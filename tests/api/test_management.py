"""The management port."""

from __future__ import annotations

import httpx
import pytest

from tests.support.runner import Runner, start_runner

TOKEN = {"HATCH_MAR_MANAGEMENT_TOKEN": "s3cret"}
FIELDS = [
    *("modelName", "modelVersion", "modelUrl", "runtime", "minWorkers", "maxWorkers"),
    *("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout", "maxRetryTimeoutInSec"),
    *("clientTimeoutInMills", "parallelType", "parallelLevel", "deviceType"),
    *("continuousBatching", "useJobTicket", "useVenv", "stateful", "sequenceMaxIdleMSec"),
    *("sequenceTimeoutMSec", "maxNumSequence", "maxSequenceJobQueueSize", "loadedAtStartup"),
    *("workers", "jobQueueStatus"),
]


def test_list(server: Runner) -> None:
    answer = httpx.get(f"{server.management_url}/models")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "models": [
            {"modelName": "mirror", "modelUrl": "mirror-1.0.mar"},
            {"modelName": "odd", "modelUrl": "odd-1.0.mar"},
        ]
    }


def test_pages(server: Runner) -> None:
    first = httpx.get(f"{server.management_url}/models?limit=1").json()
    assert first["nextPageToken"] == "1"
    assert [model["modelName"] for model in first["models"]] == ["mirror"]
    second = httpx.get(f"{server.management_url}/models?limit=1&next_page_token=1").json()
    assert [model["modelName"] for model in second["models"]] == ["odd"]
    assert second["nextPageToken"] == "2"  # TorchServe's: a last page that is full has a next one
    third = httpx.get(f"{server.management_url}/models?limit=1&next_page_token=2").json()
    assert third == {"models": []}


@pytest.mark.parametrize("query", ["limit=101", "limit=-1", "limit=x", "next_page_token=x"])
def test_nonsense_pages_are_the_first_one(server: Runner, query: str) -> None:
    assert len(httpx.get(f"{server.management_url}/models?{query}").json()["models"]) == 2


def test_describe_is_a_list_in_torchserves_order(server: Runner) -> None:
    (model,) = httpx.get(f"{server.management_url}/models/mirror").json()
    assert list(model) == FIELDS
    assert (model["modelName"], model["modelVersion"]) == ("mirror", "1.0")


def test_describe_a_version_or_all(server: Runner) -> None:
    (model,) = httpx.get(f"{server.management_url}/models/mirror/2.0").json()
    assert model["modelVersion"] == "2.0"
    every = httpx.get(f"{server.management_url}/models/mirror/all").json()
    assert [model["modelVersion"] for model in every] == ["1.0", "2.0"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/models/nobody", "ModelNotFoundException"),
        ("/models/nobody/all", "ModelNotFoundException"),
        ("/models/mirror/9", "ModelVersionNotFoundException"),
    ],
)
def test_describe_what_is_not_there(server: Runner, path: str, kind: str) -> None:
    answer = httpx.get(server.management_url + path)
    assert (answer.status_code, answer.json()["type"]) == (404, kind)


def test_a_page_in_a_browser_cannot_manage(server: Runner) -> None:
    answer = httpx.get(f"{server.management_url}/models", headers={"Host": "evil.example"})
    assert answer.status_code == 403


def test_token(models: list[str]) -> None:
    with start_runner(str(models[2]), "--management-host", "0.0.0.0", env=TOKEN) as runner:
        url = f"{runner.management_url.replace('0.0.0.0', '127.0.0.1')}/models"
        assert httpx.get(url).json()["type"] == "InvalidKeyException"
        assert httpx.get(url, headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert httpx.get(url, headers={"Authorization": "Bearer s3cret"}).status_code == 200
        assert httpx.get(f"{runner.url}/ping").status_code == 200


@pytest.mark.parametrize("path", ["/models/mirror/batching", "/models/mirror/1.0/batching/"])
def test_batching_is_explained(server: Runner, path: str) -> None:
    answer = httpx.get(server.management_url + path)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["modelName"], found["modelVersion"]) == ("mirror", "1.0")
    assert found["limits"] == {
        "batchSize": 1,
        "maxBatchDelay": None,
        "jobQueueSize": 100,
        "maxQueueDelay": None,
        "workers": 1,
    }
    assert found["why"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/models/nobody/batching", "ModelNotFoundException"),
        ("/models/mirror/9/batching", "ModelVersionNotFoundException"),
    ],
)
def test_batching_of_what_is_not_there(server: Runner, path: str, kind: str) -> None:
    answer = httpx.get(server.management_url + path)
    assert (answer.status_code, answer.json()["type"]) == (404, kind)


def test_batching_is_guarded(server: Runner) -> None:
    url = f"{server.management_url}/models/mirror/batching"
    assert httpx.get(url, headers={"Host": "evil.example"}).status_code == 403
