"""`install_py_dep_per_model`, in TorchServe and here, out of one index."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.write import write_archive
from tests.support.exchange import Call, exchange
from tests.support.indexes import start_pypiserver
from tests.support.packages import make_wheel
from tests.support.torchserve import WORK, TorchServeHome, install_torchserve, start_torchserve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HANDLER = b"""
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
    write_model(store, "plain", "")
    write_model(store, "fits", "tinylib<2\n")
    write_model(store, "apart", "tinylib<2\n", config="useVenv: true\n")
    write_model(store, "never", "nosuch>=3\n")
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path / "cache"))
    with start_pypiserver(tmp_path) as index:
        make_wheel(tmp_path / "packages", "tinylib", "1.0")
        make_wheel(tmp_path / "packages", "tinylib", "2.0")
        for name in [name for name in os.environ if name.startswith("UV_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_INDEX_URL", index.simple)
        monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "downloads"))
        yield store


def write_model(store: Path, name: str, requirements: str, config: str = "") -> None:
    files = {"handler.py": HANDLER, "requirements.txt": requirements.encode()}
    files |= {"model-config.yaml": config.encode()} if config else {}
    manifest = Manifest(
        model_name=name,
        model_version="1.0",
        handler="handler.py",
        requirements_file="requirements.txt" if requirements else None,
        config_file="model-config.yaml" if config else None,
    )
    members = tuple(Member(name, data) for name, data in files.items())
    plan = Plan(name=name, version="1.0", manifest=manifest, members=members, runtime="custom")
    write_archive(plan, store / f"{name}.mar")


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
    models = [f"{name}.mar" for name in names]
    with start_torchserve(server, store, models=models, settings=SETTINGS) as running:
        answers = {name: predict(running.url, name) for name in names}
        expected = {"fits": b"1.0", "plain": b"none", "apart": b"1.0"}
        assert answers == {name: expected[name] for name in names}, running.output()
        call = Call(method="POST", path="/models?url=never.mar&initial_workers=1&synchronous=true")
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
    models = ["fits.mar", "never.mar"]
    with start_torchserve(server, store, models=models) as running:
        for name in ("fits", "never"):
            assert predict(running.url, name) == b"none"
        said = "fits: requirements.txt: not here: tinylib<2 (not installed); pip install"
        assert (said in running.output()) is (server is None)
