"""`install_py_dep_per_model`, in TorchServe and here, out of one index."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.archives import write_mar
from tests.support.exchange import Call, exchange
from tests.support.indexes import start_pypiserver
from tests.support.packages import make_wheel
from tests.support.torchserve import WORK, TorchServeHome, install_torchserve, start_torchserve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HANDLER = """
try:
    import tinylib
    found = tinylib.version
except ImportError:
    found = "none"

def handle(data, context):
    return [found] * len(data or ())
"""
SETTINGS = {"install_py_dep_per_model": "true", "enable_model_api": "true"}


@pytest.fixture(scope="module", params=["torchserve", "ours"])
def server(request: pytest.FixtureRequest) -> TorchServeHome | None:
    """Return TorchServe, or nothing for ours."""
    return install_torchserve(WORK) if request.param == "torchserve" else None


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a model store of models with requirements; an index has what some of them need."""
    store = tmp_path / "store"
    store.mkdir()
    write_mar(store, "plain", HANDLER)
    write_mar(store, "fits", HANDLER, requirements="tinylib<2\n")
    write_mar(store, "apart", HANDLER, requirements="tinylib<2\n", config="useVenv: true\n")
    write_mar(store, "never", HANDLER, requirements="nosuch>=3\n")
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path / "cache"))
    with start_pypiserver(tmp_path) as index:
        make_wheel(tmp_path / "packages", "tinylib", "1.0")
        make_wheel(tmp_path / "packages", "tinylib", "2.0")
        for name in [name for name in os.environ if name.startswith("UV_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_INDEX_URL", index.simple)
        monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "downloads"))
        yield store


def predict(url: str, model: str) -> bytes:
    """Return what a model answers, as soon as it is there: others are served before."""
    deadline = time.monotonic() + 60
    while True:
        answer = exchange(url, Call(method="POST", path=f"/predictions/{model}"))
        if answer.status not in (404, 503) or time.monotonic() > deadline:
            return answer.body
        time.sleep(0.05)


def test_what_a_model_requires_is_there_for_it_alone(
    server: TorchServeHome | None, store: Path
) -> None:
    names = ["fits", "plain"]
    if server is None:  # TorchServe's own environment of a model does not see this one's torch
        names.append("apart")
    models = [f"{name}-1.0.mar" for name in names]
    with start_torchserve(server, store, models=models, settings=SETTINGS) as running:
        answers = {name: predict(running.url, name) for name in names}
        expected = {"fits": b"1.0", "plain": b"none", "apart": b"1.0"}
        assert answers == {name: expected[name] for name in names}, running.output()
        call = Call(
            method="POST", path="/models?url=never-1.0.mar&initial_workers=1&synchronous=true"
        )
        refused = exchange(running.management_url, call)
        assert refused.status == 400
        assert refused.json() == {
            "code": 400,
            "type": "ModelException",
            "message": "Custom pip package installation failed for model never",
        }
        assert "nosuch" in running.output()
        gone = exchange(running.management_url, Call(method="GET", path="/models/never"))
        assert gone.status == (404 if server is None else 200)


def test_by_default_nothing_is_installed(server: TorchServeHome | None, store: Path) -> None:
    models = ["fits-1.0.mar", "never-1.0.mar"]
    with start_torchserve(server, store, models=models) as running:
        for name in ("fits", "never"):
            assert predict(running.url, name) == b"none"
        said = "fits: requirements.txt: not here: tinylib<2 (not installed); pip install"
        deadline = time.monotonic() + (60 if server is None else 0)
        while said not in running.output() and time.monotonic() < deadline:
            time.sleep(0.01)  # what is logged is written behind what is answered
        assert (said in running.output()) is (server is None)
