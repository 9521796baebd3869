"""Servers that are one Python program and a few packages from PyPI."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.environment import WORK, make_environment, pip

if TYPE_CHECKING:
    from collections.abc import Mapping

APPS = Path(__file__).parents[1] / "apps"


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonServer:
    """A program in a virtual environment of its own."""

    name: str
    paths: Mapping[str, str]
    requirements: tuple[str, ...]
    arguments: tuple[str, ...]
    """Of the environment's Python; `{port}` and `{apps}` are filled in."""
    environ: Mapping[str, str] = field(default_factory=dict)
    warm_up: float = 2.0

    @property
    def python(self) -> Path:
        return WORK / "benchmarks" / self.name / "bin" / "python"

    def prepare(self) -> Mapping[str, str]:
        pip(make_environment(self.python.parents[1]), "install", *self.requirements)
        return installed_versions(self.python, self.requirements)

    def command(self, port: int, scratch: Path) -> list[str]:
        filled = [argument.format(port=port, apps=APPS) for argument in self.arguments]
        environ = [f"{name}={value}" for name, value in self.environ.items()]
        return ["env", *environ, str(self.python), *filled]


def installed_versions(python: Path, requirements: tuple[str, ...]) -> dict[str, str]:
    """Return `{package: version}` as installed in the environment of `python`."""
    names = [requirement.partition("==")[0].partition("[")[0] for requirement in requirements]
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    command = [str(python), "-c", code, *names]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(names, found, strict=True))


ASYNCIO = PythonServer(
    name="asyncio-protocol",
    paths={"echo": "/"},
    requirements=("httptools",),
    arguments=("{apps}/asyncio_echo.py", "{port}"),
)
FASTAPI = PythonServer(
    name="fastapi",
    paths={"echo": "/predict"},
    requirements=("fastapi", "uvicorn[standard]"),
    # Without its access log, which it writes unless told otherwise: we time it at its best.
    arguments=(
        "-m",
        "uvicorn",
        "--app-dir={apps}",
        "--port={port}",
        "--no-access-log",
        "fastapi_echo:app",
    ),
)
LITSERVE = PythonServer(
    name="litserve",
    paths={"echo": "/predict"},
    requirements=("litserve", "python-multipart"),  # it imports the second and does not say so
    arguments=("{apps}/litserve_echo.py", "{port}"),
)
MOSEC = PythonServer(
    name="mosec",
    paths={"echo": "/inference"},
    requirements=("mosec",),
    arguments=("{apps}/mosec_echo.py", "--address=127.0.0.1", "--port={port}"),
)
