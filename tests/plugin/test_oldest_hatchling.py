"""The oldest hatchling that we say we work with."""

from __future__ import annotations

import csv
import io
import tomllib
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support.builds import REPOSITORY, Environment, make_environment, only, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Build
    from tests.support.builds import Shared


def floor() -> str:
    """Return the version that pyproject.toml names."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (wanted,) = (each for each in project["dependencies"] if each.startswith("hatchling"))
    return str(wanted).removeprefix("hatchling>=")


@pytest.fixture(scope="module")
def oldest(shared: Shared, wheelhouse: Path, build_environ: dict[str, str]) -> Environment:
    """An environment with hatch-mar and that hatchling."""

    def make(into: Path) -> None:
        environment = make_environment(into)
        environment.install(*wheelhouse.glob("*.whl"))
        uv = ("uv", "pip", "install", "--quiet", "--python", environment.python)
        run(*uv, f"hatchling=={floor()}", "editables~=0.3", env=build_environ)

    return Environment(shared.once("oldest-hatchling", make))


@pytest.mark.parametrize("target", ["sdist", "wheel", "wheel:editable", "mar"])
@pytest.mark.parametrize("name", ["shout", "colours"])
def test_it_builds_every_target(
    request: pytest.FixtureRequest,
    oldest: Environment,
    build_environ: dict[str, str],
    name: str,
    target: str,
) -> None:
    project: Path = request.getfixturevalue(name)
    command = (oldest.python, "-m", "hatchling", "build", "-t", target)
    run(*command, cwd=project, env=build_environ)
    suffix = {"sdist": "*.tar.gz", "mar": "*.mar"}.get(target, "*.whl")
    assert only(project / "dist", suffix).stat().st_size > 0


@pytest.mark.parametrize("name", ["shout", "colours"])
def test_its_wheel_holds_what_the_newest_makes(
    request: pytest.FixtureRequest,
    oldest: Environment,
    build: Build,
    build_environ: dict[str, str],
    name: str,
) -> None:
    project: Path = request.getfixturevalue(name)
    build(project)
    wheel = only(project / "dist", "*.whl")
    newest = members(wheel)
    archive = only(project / "dist", "*.mar").read_bytes()
    run(oldest.python, "-m", "hatchling", "build", "-t", "wheel", cwd=project, env=build_environ)
    assert members(wheel) == newest
    assert only(project / "dist", "*.mar").read_bytes() == archive


def members(wheel: Path) -> dict[str, bytes]:
    """Return the files of `wheel` but those that name hatchling's release or its metadata's."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (record,) = (name for name in names if name.endswith("/RECORD"))
        rows = csv.reader(io.StringIO(archive.read(record).decode()))
        assert [row[0] for row in rows] == names
        own = ("/RECORD", "/WHEEL", "/METADATA")
        return {name: archive.read(name) for name in names if not name.endswith(own)}


def test_it_is_the_one_that_was_asked(oldest: Environment) -> None:
    asked = "from importlib.metadata import version; print(version('hatchling'))"
    assert run(oldest.python, "-c", asked).strip() == floor()
