"""The sample on a private index: uploaded by hatch and twine, installed by name with pip and uv."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.builds import (
    SAMPLE_PROJECT,
    Environment,
    copy_project,
    make_environment,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER, PASSWORD = "somebody", "secret"
UPLOADED = {"digits-1.0.0-py3-none-any.whl", "digits-1.0.0.tar.gz"}
STARTS = 3
"""A port found free may be taken before the server binds it."""


@dataclass(frozen=True, slots=True)
class Index:
    """A private index on loopback, which takes uploads of `USER`."""

    url: str
    packages: Path

    @property
    def simple(self) -> str:
        """What installers are given."""
        return f"{self.url}simple/"

    def files(self) -> set[str]:
        """Return the names of what was uploaded."""
        return {path.name for path in self.packages.iterdir()}


@contextlib.contextmanager
def start_index(directory: Path) -> Iterator[Index]:
    """Run pypiserver as long as the block lasts."""
    packages = directory / "packages"
    packages.mkdir()
    digest = base64.b64encode(hashlib.sha1(PASSWORD.encode(), usedforsecurity=False).digest())
    (directory / "htpasswd").write_text(f"{USER}:{{SHA}}{digest.decode()}\n")
    for _ in range(STARTS):
        port = free_port()
        command = [sys.executable, "-m", "pypiserver", "run", "-i", "127.0.0.1", "-p", str(port)]
        command += ["--disable-fallback", "-P", str(directory / "htpasswd"), str(packages)]
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}/"
            if answers(server, f"{url}health"):
                yield Index(url, packages)
                return
        finally:
            server.terminate()
            server.wait()
    pytest.fail((directory / "log").read_text())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def answers(server: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until `url` answers, or return False when the server has exited."""
    while server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    serving_env: Environment,
    build_environ: dict[str, str],
) -> Path:
    """A copy of the sample project, built; `build.log` is what the build said."""
    project = copy_project(SAMPLE_PROJECT, tmp_path_factory.mktemp("publish") / "digits")
    command = (serving_env.python, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel")
    (project / "build.log").write_text(run(*command, cwd=project, env=build_environ))
    return project


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An empty index."""
    with start_index(tmp_path) as index:
        yield index


def test_hatch_publishes_the_wheel_and_the_sdist(
    project: Path, index: Index, build_environ: dict[str, str]
) -> None:
    command = ("hatch", "publish", "-r", index.url, "-u", USER, "-a", PASSWORD)
    run(*command, cwd=project, env=build_environ)
    assert index.files() == UPLOADED


def test_the_command_that_the_build_names_uploads_them_too(
    project: Path, index: Index, build_environ: dict[str, str]
) -> None:
    named = re.search(r"twine upload .*", (project / "build.log").read_text())
    assert named
    files = [name for glob in shlex.split(named[0])[2:] for name in project.glob(glob)]
    variables = {
        "TWINE_REPOSITORY_URL": index.url,
        "TWINE_USERNAME": USER,
        "TWINE_PASSWORD": PASSWORD,
        "TWINE_NON_INTERACTIVE": "1",
    }
    command = [sys.executable, "-m", "twine"]
    run(*command, "check", "--strict", *files, env=build_environ)
    run(*command, "upload", *files, cwd=project, env={**build_environ, **variables})
    assert index.files() == UPLOADED


@pytest.fixture(scope="module")
def stocked(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index with the sample on it."""
    with start_index(tmp_path_factory.mktemp("index")) as index:
        for name in UPLOADED:
            (index.packages / name).write_bytes((project / "dist" / name).read_bytes())
        yield index


def test_pip_installs_it_by_name(
    stocked: Index, tmp_path: Path, build_environ: dict[str, str]
) -> None:
    environment = make_environment(tmp_path / "environment")
    pip = (sys.executable, "-m", "pip", "--python", environment.python)
    no_other_index = {**build_environ, "PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": ""}
    run(*pip, "install", "--index-url", stocked.simple, "digits", env=no_other_index)
    assert_installed(environment)


def test_uv_installs_it_by_name(
    stocked: Index, tmp_path: Path, build_environ: dict[str, str]
) -> None:
    environment = Environment(tmp_path / "environment")
    run("uv", "venv", "--quiet", "--python", sys.executable, environment.path, env=build_environ)
    # Everything that the model asks for, except the gigabyte.
    (tmp_path / "overrides.txt").write_text("torch ; sys_platform == 'never'\n")
    uv = ("uv", "pip", "install", "--quiet", "--python", environment.python)
    overrides = ("--override", tmp_path / "overrides.txt")
    run(*uv, *overrides, "--index", stocked.simple, "digits", env=build_environ)
    assert_installed(environment)


ASK = """
import json, sys
from hatch_mar.archive.installed import installed_models, open_installed
with open_installed("digits") as archive:
    json.dump([installed_models(), archive.kind, archive.manifest.model_version], sys.stdout)
"""


def assert_installed(environment: Environment) -> None:
    """Check that the model is found by name, and that its program starts."""
    answer = json.loads(run(environment.python, "-c", ASK))
    assert answer == [[["digits", "digits_mar"]], "dir", "1.0.0"]
    assert "Usage: serve-digits" in run(environment.program("serve-digits"), "--help")
