"""Models that come and go: one list of calls, each after the other, to both servers."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.support.differences import assert_same_reply
from tests.support.exchange import Call, Reply, exchange
from tests.support.runner import start_runner
from tests.support.torchserve import start_torchserve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.torchserve import TorchServeHome

BROKEN = "def handle(data, context):\n    raise RuntimeError('no')\n"
DESCRIBED = """\
from ts.torch_handler.base_handler import BaseHandler
class Described(BaseHandler):
    def initialize(self, context):
        self.context = context
    def describe_handle(self):
        return {"answer": 42}
    def preprocess(self, data):
        return data
    def inference(self, data):
        return data
    def postprocess(self, data):
        return ["described" for _ in data]
"""
JSON = (("Content-Type", "application/json"),)


def _post(query: str) -> Call:
    return Call(path=f"/models?{query}", body=b"")


def _put(path: str) -> Call:
    return Call(method="PUT", path=path, body=b"")


def _get(path: str) -> Call:
    return Call(method="GET", path=path)


def _delete(path: str) -> Call:
    return Call(method="DELETE", path=path)


def _json(**values: object) -> Call:
    return Call(path="/models", headers=JSON, body=json.dumps(values).encode())


CALLS: Mapping[str, Call] = {
    "no-url": _post("model_name=x"),
    "empty-url": _post("url="),
    "relative": _post("url=../echo.mar"),
    "not-there": _post("url=nope.mar"),
    "runtime": _post("url=echo.mar&runtime=python4"),
    "again": _post("url=echo.mar"),
    "not-allowed": _post("url=" + quote("https://models.invalid/x.mar")),
    "without-workers": _post("url=echo-two.mar"),
    "list": _get("/models"),
    "two-describe-not-there": _get("/models/echo/9"),
    "kserve-ready": _get("/v1/models/echo"),
    "kserve-not-there": _get("/v1/models/nobody"),
    "renamed": _post("url=echo.mar&model_name=other&initial_workers=1"),
    "renamed-asynchronous": _post(
        "url=echo.mar&model_name=third&initial_workers=1&synchronous=false"
    ),
    "number-that-is-none": _post("url=echo.mar&model_name=odd&initial_workers=x&batch_size=y"),
    "json": _json(url="echo.mar", model_name="from-json", initial_workers=1),
    "json-without-url": _json(model_name="from-json"),
    "handler": _post("url=echo.mar&model_name=gone&handler=nowhere.py&initial_workers=1"),
    "broken": _post("url=broken.mar&initial_workers=1"),
    "not-an-archive": _post("url=text.mar"),
    "scale-asynchronous": _put("/models/echo?min_worker=1"),
    "scale": _put("/models/echo?min_worker=2&synchronous=true"),
    "scale-version": _put("/models/echo/2.0?min_worker=1&max_worker=1&synchronous=true"),
    "scale-bounds": _put("/models/echo?min_worker=2&max_worker=1"),
    "scale-nobody": _put("/models/nobody?min_worker=2"),
    "scale-no-version": _put("/models/echo/9?min_worker=2"),
    "set-default": _put("/models/echo/3.0/set-default"),
    "set-default-no-version": _put("/models/echo/9/set-default"),
    "set-default-nobody": _put("/models/nobody/1.0/set-default"),
    "unregister-default": _delete("/models/echo/3.0"),
    "unregister-default-implied": _delete("/models/echo"),
    "set-default-back": _put("/models/echo/2.0/set-default"),
    "unregister-version": _delete("/models/echo/3.0"),
    "unregister-no-version": _delete("/models/echo/3.0"),
    "unregister-nobody": _delete("/models/nobody"),
    "unregister": _delete("/models/other"),
    "list-after": _get("/models"),
    "described": _post("url=described.mar&initial_workers=1"),
    "customized-without-workers": _get("/models/odd?customized=true"),
    "method": Call(method="PATCH", path="/models/echo", body=b""),
    "store-untouched": _post("url=echo-two.mar&initial_workers=1"),
}


@pytest.fixture(scope="module")
def store(
    torchserve_home: TorchServeHome, handlers: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    store = tmp_path_factory.mktemp("store")
    echo = str(handlers / "echo" / "handler.py")
    archive = torchserve_home.make_archive
    archive("echo", store, handler=echo, version="3.0").rename(store / "echo-two.mar")
    archive("echo", store, handler=echo, version="2.0")
    sources = tmp_path_factory.mktemp("sources")
    for name, text in (("broken", BROKEN), ("described", DESCRIBED)):
        (sources / f"{name}.py").write_text(text)
        archive(name, store, handler=str(sources / f"{name}.py"))
    (store / "text.mar").write_text("no archive\n")
    return store


@pytest.fixture(scope="module")
def replies(
    torchserve_home: TorchServeHome, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Reply, Reply]]:
    """Every call's two replies. Each server has a store of its own: it may write into it."""
    stores = [tmp_path_factory.mktemp(name) / "store" for name in ("theirs", "ours")]
    for copy in stores:
        shutil.copytree(store, copy)
    settings = {"enable_model_api": "true", "default_workers_per_model": "0"}
    settings |= {"allowed_urls": "file://nothing/.*"}
    with start_torchserve(
        torchserve_home, stores[0], models=("echo.mar",), settings=settings
    ) as theirs:
        flags = ("--models", "echo.mar", "--enable-model-api")
        with start_runner("--model-store", str(stores[1]), *flags) as ours:
            assert ours.exited() is None, ours.output()
            urls = theirs.management_url, ours.management_url
            for url in urls:
                exchange(url, _put("/models/echo?min_worker=1&synchronous=true"))
            return {
                case: (exchange(urls[0], call), exchange(urls[1], call))
                for case, call in CALLS.items()
            }


@pytest.mark.parametrize("case", CALLS)
def test_same_reply(case: str, replies: dict[str, tuple[Reply, Reply]]) -> None:
    theirs, ours = replies[case]
    assert_same_reply(f"control-{case}", theirs, ours)
