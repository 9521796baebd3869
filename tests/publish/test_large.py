"""Five gibibytes of weights, from `hatch-mar lock` to an answer: one copy, and little memory."""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
import urllib.request
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.builds import make_environment, only, run
from tests.support.disk import zeros_take_no_room
from tests.support.indexes import PASSWORD, USER, start_pypiserver
from tests.support.runner import start_runner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.builds import Environment, ProjectMaker

SIZE = 5 * 2**30
END = b"the very end"
LITTLE = 300 * 10**6
"""Bytes that no process may have held at once."""
HANDLER = """\
import os


class Peek:
    def initialize(self, context):
        self.path = os.path.join(context.system_properties["model_dir"], "big.safetensors")

    def handle(self, data, context):
        with open(self.path, "rb") as file:
            file.seek(-12, os.SEEK_END)
            answer = {"size": os.path.getsize(self.path), "end": file.read().decode()}
        return [answer] * len(data)
"""
MEASURE = """\
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print("peak:", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code)
"""
"""Runs a command as a child of a small process, whose memory would else count as the child's."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server that has the big file, which takes no room on its disk."""
    directory = tmp_path / "served"
    directory.mkdir()
    with (directory / "big.safetensors").open("wb") as file:
        file.truncate(SIZE)
        file.seek(SIZE - len(END))
        file.write(END)
    with _serving(directory) as url, zeros_take_no_room(tmp_path):
        yield url
    shutil.rmtree(tmp_path, ignore_errors=True)  # pytest keeps what tests leave for days


@contextmanager
def _serving(directory: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = partial(Quiet, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def measured(*command: str | Path, cwd: Path, env: dict[str, str]) -> int:
    """Run `command`, and return the most bytes that one of its processes held."""
    said = run(sys.executable, "-c", MEASURE, *command, cwd=cwd, env=env)
    found = re.search(r"^peak: (\d+)$", said, re.MULTILINE)
    assert found, said
    return int(found[1])


def taken(path: Path) -> int:
    """Return the bytes in the files of `path`, a directory; hard links count once."""
    files = (each.lstat() for each in path.rglob("*"))
    return sum({each.st_ino: each.st_size for each in files}.values())


def peak(process: psutil.Process) -> int:
    """Return the most bytes that a running process has held (proc(5), `VmHWM`)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@pytest.fixture
def project(served: str, make_project: ProjectMaker) -> Path:
    """A project that refers to the big file."""
    mar = f'handler = "handler.py"\nweights = "{served}/big.safetensors"'
    return make_project("peek", mar=mar, files={"handler.py": HANDLER})


@pytest.fixture
def server_env(tmp_path: Path, wheelhouse: Path) -> Environment:
    """An environment with hatch-mar, and without the model."""
    environment = make_environment(tmp_path / "environment")
    environment.install(*wheelhouse.glob("*.whl"))
    return environment


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_the_lock_to_an_answer(
    project: Path,
    tmp_path: Path,
    serving_env: Environment,
    server_env: Environment,
    build_environ: dict[str, str],
) -> None:
    cache = tmp_path / "cache"
    environ = {**build_environ, "HATCH_MAR_CACHE_DIR": str(cache), "NO_PROXY": "127.0.0.1"}
    python = serving_env.python

    peaks = {
        "lock": measured(python, "-m", "hatch_mar", "lock", cwd=project, env=environ),
        "check": measured(python, "-m", "hatch_mar", "lock", "--check", cwd=project, env=environ),
        "build": measured(
            *(python, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel"),
            cwd=project,
            env=environ,
        ),
    }
    assert f"size = {SIZE}\n" in (project / "mar.lock").read_text()
    assert taken(project) < 2**20, "neither wheel nor archive carries it"

    with start_pypiserver(tmp_path) as index:
        login = ("--username", USER, "--password", PASSWORD, "--trusted-publishing", "never")
        uv = Path(sys.executable).with_name("uv")
        run(uv, "publish", "--publish-url", index.upload, *login, cwd=project, env=environ)
        run(
            *(uv, "pip", "install", "--python", server_env.python, "--no-deps", "--no-cache"),
            *("--index-url", index.simple, "peek"),
            env=environ,
        )

    with start_runner(argv=[str(server_env.program("serve-peek"))], env=environ) as runner:
        assert runner.exited() is None, runner.output()
        with urllib.request.urlopen(f"{runner.url}/predictions/peek", b"{}", timeout=60) as answer:
            assert json.load(answer) == {"size": SIZE, "end": END.decode()}
        server = psutil.Process(runner.process.pid)
        for each in (server, *server.children(recursive=True)):
            peaks[" ".join(each.cmdline()[-2:])] = peak(each)
        everywhere = taken(tmp_path)
    assert {name: held for name, held in peaks.items() if held > LITTLE} == {}
    assert only(cache / "sha256", "*/*").stat().st_size == SIZE
    assert everywhere < SIZE * 2.1, "what is served, and one copy"
