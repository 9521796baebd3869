"""Alive, ready, and the reason why not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.archives import write_mar
from tests.support.runner import Runner, start_runner

if TYPE_CHECKING:
    from pathlib import Path

SLOW_START = """
    import os, time

    def handle(data, context):
        if data is None:
            while not os.path.exists({gate!r}):
                time.sleep(0.005)
            return None
        return ["ok"] * len(data)
"""
BROKEN = """
    def handle(data, context):
        raise RuntimeError("no weights today")
"""


@pytest.fixture
def loading(tmp_path: Path) -> Path:
    """An archive whose model is loaded once `<directory>/gate` is there."""
    return write_mar(tmp_path, "slow", SLOW_START.format(gate=str(tmp_path / "gate")))


def test_ready(server: Runner) -> None:
    ready = httpx.get(f"{server.url}/readyz").json()
    assert ready["ready"] is True
    assert ready["reasons"] == []
    assert set(ready["models"]["mirror"]) == {"1.0", "2.0"}
    assert ready["models"]["mirror"]["1.0"]["state"] == "ready"


def test_ping_is_torchserves(server: Runner) -> None:
    for method in ("GET", "POST", "PUT"):
        answer = httpx.request(method, f"{server.url}/ping")
        assert answer.status_code == 200
        assert answer.text == '{\n  "status": "Healthy"\n}\n'


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/readyz/mirror", 200),
        ("/readyz/mirror/2.0", 200),
        ("/readyz/mirror/9", 404),
        ("/readyz/nobody", 404),
    ],
)
def test_ready_per_model(server: Runner, path: str, status: int) -> None:
    assert httpx.get(server.url + path).status_code == status


@pytest.mark.parametrize("port", ["url", "management_url", "metrics_url"])
def test_alive_on_every_port(server: Runner, port: str) -> None:
    assert httpx.get(f"{getattr(server, port)}/livez").status_code == 200


def test_not_ready_while_loading(loading: Path) -> None:
    with start_runner(str(loading), wait="listening") as runner:
        assert httpx.get(f"{runner.url}/livez").status_code == 200
        ready = httpx.get(f"{runner.url}/readyz")
        assert ready.status_code == 503
        assert "slow" in ready.json()["reasons"][0]
        while (one := httpx.get(f"{runner.url}/readyz/slow").status_code) == 404:
            time.sleep(0.02)  # until the archive has been opened, nobody knows its name
        assert one == 503
        ping = httpx.get(f"{runner.url}/ping")
        assert (ping.status_code, ping.json()["status"]) == (500, "Unhealthy")
        (loading.parent / "gate").touch()
        runner.wait_ready()
        assert httpx.get(f"{runner.url}/ping").status_code == 200


def test_a_model_that_failed_is_named_and_the_others_serve(
    models: list[Path], tmp_path: Path
) -> None:
    broken = write_mar(tmp_path, "broken", BROKEN)
    with start_runner(str(models[2]), str(broken), wait="listening") as runner:
        runner.wait_output("not served")
        while httpx.get(f"{runner.url}/readyz/odd").status_code != 200:
            time.sleep(0.02)
        answer = httpx.post(f"{runner.url}/predictions/odd", json={"text": "ok"}, timeout=60)
        assert answer.text == "ok"
        ready = httpx.get(f"{runner.url}/readyz")
        assert ready.status_code == 503
        assert any("no weights today" in reason for reason in ready.json()["reasons"])
