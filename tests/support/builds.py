"""Scratch projects, the local wheelhouse and real build front ends.

hatch-mar is on no index yet: an isolated build finds it in a wheelhouse, which is made once a
session. What is made once is shared between the workers of pytest-xdist.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import zipfile
from collections.abc import Callable, Iterator, Mapping
from configparser import ConfigParser
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from filelock import FileLock

from tests.support.environment import torch_requirement

REPOSITORY = Path(__file__).parents[2]
SAMPLE_PROJECT = REPOSITORY / "sample_project"
PROJECTS = REPOSITORY / "tests" / "projects"
_LEFT_BEHIND = shutil.ignore_patterns("__pycache__", "dist", "*.pyc", ".git", ".venv")
_FRONT_ENDS_OWN = ("HATCH_", "PIP_", "UV_", "VIRTUAL_ENV", "PYTHONPATH", "SOURCE_DATE_EPOCH")
"""Variables of the session that would change what a front end does."""
_KEPT = (
    *("PIP_CACHE_DIR", "PIP_CERT", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"),
    *("UV_CACHE_DIR", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS"),
)
"""But these say how this machine reaches its indexes."""


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    expect: int | None = 0,
) -> str:
    """Run `command` and return all that it printed, stdout and stderr as one.

    Unless `expect` is None, another exit status than `expect` fails the test with that output.
    """
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if expect is not None and result.returncode != expect:
        pytest.fail(f"{command} exited with {result.returncode}:\n{result.stdout}")
    return result.stdout


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python environment of its own, which sees this one's packages behind its own."""

    path: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    def program(self, name: str) -> Path:
        """Return the console script `name`."""
        return self.path / "bin" / name

    def install(self, *arguments: str | Path) -> None:
        """Install wheels, with nothing that they depend on.

        uv's cache would keep every wheel that a test ever built.
        """
        run(
            *(_uv(), "pip", "install", "--python", self.python, "--no-cache"),
            *("--no-deps", "--no-index", "--offline", "--quiet", *arguments),
        )


def make_environment(path: Path) -> Environment:
    """Make an empty environment at `path` that sees this one's packages, except hatch-mar itself.

    torch alone would take a minute and a gigabyte to install again.
    """
    run(sys.executable, "-m", "venv", "--without-pip", path)
    environment = Environment(path)
    seen = path / "seen"
    seen.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if "hatch_mar" not in package.name and package.suffix != ".pth":
            (seen / package.name).symlink_to(package)
    site = run(environment.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    Path(site.strip(), "seen.pth").write_text(f"{seen}\n")
    return environment


def clean_environ() -> dict[str, str]:
    """Return this process's environment without what other tools or tests set for front ends."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or not name.startswith((*_FRONT_ENDS_OWN, "HATCH_MAR_"))
    }


def copy_project(source: Path, target: Path) -> Path:
    """Copy a project without what builds leave in it, and return `target`."""
    shutil.copytree(source, target, ignore=_LEFT_BEHIND)
    return target


def wheel_names(wheel: Path) -> set[str]:
    """Return the names of a wheel's files, each of which is there once."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    return set(names)


def wheel_entry_points(wheel: Path) -> dict[str, dict[str, str]]:
    """Return the entry points of a wheel by group and name."""
    parser = ConfigParser(delimiters=("=",))
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        parser.read_string(archive.read(name).decode())
    return {group: dict(parser[group]) for group in parser.sections()}


def sdist_names(sdist: Path) -> set[str]:
    """Return the names of an sdist's files, each of which is there once, below its directory."""
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert len(names) == len(set(names))
    return set(names)


def only(directory: Path, pattern: str) -> Path:
    """Return the one file in `directory` that matches `pattern`."""
    (path,) = directory.glob(pattern)
    return path


@dataclass(frozen=True, slots=True)
class Shared:
    """A directory of the whole test session."""

    path: Path

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the directory `name`, filled by `make` if no process has done it yet."""
        target = self.path / name
        done = self.path / f"{name}.done"
        with FileLock(self.path / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir()
                make(target)
                done.touch()
        return target


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """A directory that all workers of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    path.mkdir(exist_ok=True)
    return Shared(path)


@pytest.fixture(scope="session")
def wheelhouse(shared: Shared) -> Path:
    """A directory with hatch-mar's own wheel."""
    return shared.once(
        "wheelhouse",
        lambda into: run(
            *(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", into),
            cwd=REPOSITORY,
            env=clean_environ(),
        ),
    )


@pytest.fixture(scope="session")
def build_environ(shared: Shared, wheelhouse: Path) -> dict[str, str]:
    """The environment for a front end: it finds hatch-mar in the wheelhouse, and one torch."""

    def make(into: Path) -> None:
        (into / "constraints.txt").write_text(f"{torch_requirement()}\n")

    constraints = str(shared.once("constraints", make) / "constraints.txt")
    places = [*os.environ.get("PIP_FIND_LINKS", "").split(), str(wheelhouse)]
    return {
        **clean_environ(),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PIP_CONSTRAINT": constraints,
        "PIP_FIND_LINKS": " ".join(places),
        # A connection that stalls is tried again before pytest gives the test up.
        "PIP_DEFAULT_TIMEOUT": "20",
        "UV_HTTP_TIMEOUT": "20",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_CONSTRAINT": constraints,
        "UV_FIND_LINKS": ",".join(places),
        "UV_PYTHON_DOWNLOADS": "never",
        # hatch keeps build environments: one of an earlier session has an older hatch-mar
        "HATCH_DATA_DIR": str(shared.path / "hatch"),
    }


@pytest.fixture(scope="session")
def serving_env(shared: Shared, wheelhouse: Path) -> Environment:
    """An environment with hatch-mar installed from its wheel, and hatchling and torch in sight."""

    def make(into: Path) -> None:
        environment = make_environment(into)
        environment.install(*wheelhouse.glob("*.whl"))

    return Environment(shared.once("serving", make))


@pytest.fixture(scope="session")
def sample_dist(shared: Shared, serving_env: Environment, build_environ: dict[str, str]) -> Path:
    """What a build of the sample project leaves: its sdist, its wheel and its archive."""

    def make(into: Path) -> None:
        project = copy_project(SAMPLE_PROJECT, into / "project")
        command: list[str | Path] = [
            serving_env.python,
            "-m",
            "hatchling",
            "build",
            "-d",
            into / "dist",
        ]
        run(*command, "-t", "sdist", "-t", "wheel", cwd=project, env=build_environ)

    return shared.once("sample", make) / "dist"


@pytest.fixture(scope="session")
def sample_wheel(sample_dist: Path) -> Path:
    """The sample project's wheel."""
    return only(sample_dist, "*.whl")


@pytest.fixture(scope="session")
def sample_mar(sample_dist: Path) -> Path:
    """The sample project's archive."""
    return only(sample_dist, "*.mar")


@dataclass(frozen=True, slots=True)
class Celsius:
    """The project whose weights are elsewhere."""

    project: Path
    weights: bytes
    requests: list[str]
    """What the server of the weights was asked for, so far."""


@pytest.fixture
def celsius(tmp_path: Path) -> Iterator[Celsius]:
    """A project that refers to weights on a server, which runs as long as the test."""
    project = copy_project(PROJECTS / "celsius", tmp_path / "celsius")
    served = tmp_path / "served"
    served.mkdir()
    run(sys.executable, project / "train.py", served / "celsius.pt")
    weights = (served / "celsius.pt").read_bytes()
    with _file_server(served) as (url, requests):
        pyproject = project / "pyproject.toml"
        text = pyproject.read_text().replace("@WEIGHTS_URL@", f"{url}/celsius.pt")
        pyproject.write_text(text.replace("@SHA256@", hashlib.sha256(weights).hexdigest()))
        yield Celsius(project, weights, requests)


@contextmanager
def _file_server(directory: Path) -> Iterator[tuple[str, list[str]]]:
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            requests.append(str(arguments[1]))

    address = ("127.0.0.1", 0)
    with ThreadingHTTPServer(address, partial(Handler, directory=str(directory))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


ProjectMaker = Callable[..., Path]
PYPROJECT = """\
[build-system]
requires = ["hatchling", "hatch-mar"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["hatch-mar[serve]"]
dynamic = ["scripts", "entry-points"]

[tool.hatch.build.hooks.mar]

"""
HANDLER = """\
def handle(data, context):
    return ["hello"] * len(data) if data else None
"""


@pytest.fixture
def make_project(tmp_path: Path) -> ProjectMaker:
    """Write a tiny project: `make_project("demo", mar='handler = "handler.py'", files={...})`.

    `mar` is the text of `[tool.mar]`, `pyproject` replaces the tables before it, `files` are
    contents by path; there is a `handler.py` unless `files` has its own or None for it.
    """

    def make(
        name: str = "demo",
        *,
        mar: str = 'handler = "handler.py:handle"',
        pyproject: str | None = None,
        files: Mapping[str, str | bytes | None] | None = None,
    ) -> Path:
        project = tmp_path / name
        head = PYPROJECT.format(name=name) if pyproject is None else textwrap.dedent(pyproject)
        body = f"{head}\n[tool.mar]\n{textwrap.dedent(mar)}\n"
        _write(project, {"pyproject.toml": body, "handler.py": HANDLER, **(files or {})})
        return project

    return make


def _write(root: Path, files: Mapping[str, str | bytes | None]) -> None:
    for name, content in files.items():
        if content is None:
            continue
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def _uv() -> Path:
    return Path(sys.executable).with_name("uv")
