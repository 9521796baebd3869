"""Models whose packages are not here, and settings of config.properties that reach workers."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.write import write_archive
from tests.support.archives import write_mar
from tests.support.builds import clean_environ
from tests.support.indexes import start_pypiserver
from tests.support.packages import make_wheel
from tests.support.runner import start_runner
from tests.support.torchserve import start_torchserve

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDY = """
    def handle(data, context):
        if data is None:
            return None
        import tinylib
        return [tinylib.version] * len(data)
"""
NAMELESS = b"""
import os

def answer(data, context):
    seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "MY_A", "NOT_MY_A")}
    return [seen] * len(data or ())
"""


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return an environment with an index that has one package, and a cache of its own."""
    with start_pypiserver(tmp_path) as index:
        make_wheel(tmp_path / "packages", "tinylib", "2.0")
        environ = {name: text for name, text in clean_environ().items() if name[:3] != "UV_"}
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        yield {
            **environ,
            "PIP_INDEX_URL": index.simple.replace("://", "://user:s3cret@"),
            "PIP_CACHE_DIR": str(tmp_path / "downloads"),
            "HATCH_MAR_CACHE_DIR": str(tmp_path / "cache"),
            "TMPDIR": str(scratch),
        }


@pytest.fixture
def needy(tmp_path: Path) -> Path:
    return write_mar(tmp_path, "needy", NEEDY, requirements="tinylib>=2\nclick\n")


def test_what_is_missing_is_said_in_a_line(needy: Path, environ: dict[str, str]) -> None:
    with start_runner(str(needy), env=environ) as runner:
        said = (
            "needy: requirements.txt: not here: tinylib>=2 (not installed); pip install "
            "'tinylib>=2', or start with --install-requirements"
        )
        runner.wait_output("needy 1.0: ready")
        assert said in runner.output().splitlines()
        assert httpx.post(f"{runner.url}/predictions/needy", content=b"x").status_code == 503


def test_it_is_installed_once_if_wished_for(needy: Path, environ: dict[str, str]) -> None:
    for more in ({}, {"HATCH_MAR_OFFLINE": "1"}):
        with start_runner(str(needy), "--install-requirements", env={**environ, **more}) as runner:
            assert httpx.post(f"{runner.url}/predictions/needy", content=b"x").text == "2.0"
            assert "s3cret" not in runner.output()


@pytest.mark.parametrize(
    ("requirements", "more", "said"),
    [
        (
            "nosuch>=3\n",
            {},
            "Could not find a version that satisfies the requirement nosuch>=3",
        ),
        (
            "tinylib\n",
            {"HATCH_MAR_OFFLINE": "1"},
            "nothing is installed while HATCH_MAR_OFFLINE is",
        ),
    ],
)
def test_what_cannot_be_installed_is_an_error(
    requirements: str, more: dict[str, str], said: str, tmp_path: Path, environ: dict[str, str]
) -> None:
    mar = write_mar(tmp_path, "m", NEEDY, requirements=requirements)
    with start_runner(str(mar), "--install-requirements", env={**environ, **more}) as runner:
        assert runner.process.wait(60) == 5
        last = runner.output().splitlines()[-1]
        assert last.startswith("hatch-mar: m: requirements.txt: ")
        assert said in last
        assert "s3cret" not in runner.output()
        assert "Traceback" not in runner.output()
    assert list(Path(environ["TMPDIR"]).iterdir()) == []


def test_settings_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`default_service_handler`, `blacklist_env_vars` (whole names) and `number_of_gpu`."""
    manifest = Manifest(model_name="nameless", model_version="1.0")
    members = (Member("handler.py", NAMELESS),)
    plan = Plan(
        name="nameless", version="1.0", manifest=manifest, members=members, runtime="custom"
    )
    write_archive(plan, tmp_path / "nameless.mar")
    monkeypatch.setenv("MY_A", "1")
    monkeypatch.setenv("NOT_MY_A", "1")
    settings = {
        "default_service_handler": "handler:answer",
        "blacklist_env_vars": "MY_.*|OTHER",
        "number_of_gpu": "0",
    }
    with start_torchserve(None, tmp_path, models=["nameless.mar"], settings=settings) as server:
        deadline = time.monotonic() + 30
        while True:
            answer = httpx.post(f"{server.url}/predictions/nameless", content=b"x")
            if answer.status_code == 200 or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        assert answer.json() == {"CUDA_VISIBLE_DEVICES": "", "MY_A": None, "NOT_MY_A": "1"}
    assert os.environ["MY_A"] == "1"
