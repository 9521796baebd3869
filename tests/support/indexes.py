"""Private package indexes on loopback: pypiserver, and devpi."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.builds import run
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USER, PASSWORD = "root", "secret"
STARTS = 3
"""A port found free may be taken before the server binds it."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index that takes uploads of `USER`."""

    upload: str
    """What uploaders are given."""
    simple: str
    """What installers are given."""

    def files(self, project: str) -> set[str]:
        """Return the names of the files of `project` (PEP 503)."""
        with urllib.request.urlopen(f"{self.simple}{project}/", timeout=30) as page:
            links = re.findall(r'href="([^"#]+)', page.read().decode())
        return {link.rpartition("/")[2] for link in links}


@contextlib.contextmanager
def start_pypiserver(directory: Path) -> Iterator[Index]:
    """Run pypiserver, with its files in `directory`, as long as the block lasts."""
    packages = directory / "packages"
    packages.mkdir()
    digest = base64.b64encode(hashlib.sha1(PASSWORD.encode(), usedforsecurity=False).digest())
    (directory / "htpasswd").write_text(f"{USER}:{{SHA}}{digest.decode()}\n")
    command = ["-m", "pypiserver", "run", "-i", "127.0.0.1", "-p", "{port}", "--disable-fallback"]
    command += ["-P", str(directory / "htpasswd"), str(packages)]
    with _serving([sys.executable, *command], "health", directory / "log") as url:
        yield Index(url, f"{url}simple/")


@contextlib.contextmanager
def start_devpi(directory: Path) -> Iterator[Callable[[], Index]]:
    """Run devpi, with its files in `directory`, and yield what makes an empty index of it.

    It takes long to start, and holds as many indexes as anybody wants.
    """
    program = str(Path(sys.executable).with_name("devpi-server"))
    files = ("--serverdir", str(directory / "server"))
    run(
        f"{program.removesuffix('-server')}-init",
        *files,
        "--no-root-pypi",
        "--root-passwd",
        PASSWORD,
    )
    command = [program, *files, "--host", "127.0.0.1", "--port", "{port}"]
    with _serving(command, "+api", directory / "log") as url:
        names = (f"models{number}" for number in count())
        yield lambda: _make_devpi_index(f"{url}{USER}/{next(names)}")


def _make_devpi_index(url: str) -> Index:
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
    body = json.dumps({"type": "stage", "bases": []}).encode()
    request = urllib.request.Request(url, body, headers, method="PUT")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    return Index(f"{url}/", f"{url}/+simple/")


@contextlib.contextmanager
def _serving(command: list[str], path: str, log: Path) -> Iterator[str]:
    """Run `command`, `{port}` in it being a free port, and yield its URL once `path` answers."""
    for _ in range(STARTS):
        (port,) = free_ports(1)
        with log.open("wb") as output:
            server = subprocess.Popen(
                [part.format(port=port) for part in command],
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )
        try:
            url = f"http://127.0.0.1:{port}/"
            if _answers(server, f"{url}{path}"):
                yield url
                return
        finally:
            server.terminate()
            server.wait()
    pytest.fail(log.read_text())


def _answers(server: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until `url` answers, or return False when the server has exited."""
    while server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return True
        time.sleep(0.05)
    return False
