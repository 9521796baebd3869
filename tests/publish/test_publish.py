"""The sample on private indexes: uploaded by everybody, installed by name, served."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.support.builds import SAMPLE_PROJECT, copy_project, make_environment, run
from tests.support.indexes import PASSWORD, USER, Index, start_devpi, start_pypiserver
from tests.support.runner import start_runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.builds import Environment

UPLOADED = {"digits-1.0.0-py3-none-any.whl", "digits-1.0.0.tar.gz"}


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


SERVERS = ["pypiserver", pytest.param("devpi", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def devpi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Index]]:
    """A maker of empty indexes."""
    with start_devpi(tmp_path_factory.mktemp("devpi")) as make_index:
        yield make_index


@pytest.fixture(params=SERVERS)
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    """An empty index."""
    if request.param == "devpi":
        yield request.getfixturevalue("devpi")()
        return
    with start_pypiserver(tmp_path) as index:
        yield index


def upload_by_hatch(project: Path, index: Index, environ: dict[str, str]) -> None:
    command = ("hatch", "publish", "-r", index.upload, "-u", USER, "-a", PASSWORD)
    run(*command, cwd=project, env=environ)


def upload_by_uv(project: Path, index: Index, environ: dict[str, str]) -> None:
    login = ("--username", USER, "--password", PASSWORD, "--trusted-publishing", "never")
    run("uv", "publish", "--publish-url", index.upload, *login, cwd=project, env=environ)


def upload_by_twine(project: Path, index: Index, environ: dict[str, str]) -> None:
    """Run the command that the build names."""
    named = re.search(r"twine upload .*", (project / "build.log").read_text())
    assert named
    files = [name for glob in shlex.split(named[0])[2:] for name in project.glob(glob)]
    variables = {
        "TWINE_REPOSITORY_URL": index.upload,
        "TWINE_USERNAME": USER,
        "TWINE_PASSWORD": PASSWORD,
        "TWINE_NON_INTERACTIVE": "1",
    }
    command = [sys.executable, "-m", "twine"]
    run(*command, "check", "--strict", *files, env=environ)
    run(*command, "upload", *files, cwd=project, env={**environ, **variables})


def install_by_pip(environment: Environment, index: Index, environ: dict[str, str]) -> None:
    pip = (sys.executable, "-m", "pip", "--python", environment.python)
    no_other_index = {**environ, "PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": ""}
    run(*pip, "install", "--index-url", index.simple, "digits", env=no_other_index)


def install_by_uv(environment: Environment, index: Index, environ: dict[str, str]) -> None:
    # Everything that the model asks for, except the gigabyte, which the environment sees already.
    overrides = environment.path / "overrides.txt"
    overrides.write_text("torch ; sys_platform == 'never'\n")
    uv = ("uv", "pip", "install", "--quiet", "--python", environment.python)
    run(*uv, "--override", overrides, "--index", index.simple, "digits", env=environ)


UPLOADERS = {"hatch": upload_by_hatch, "twine": upload_by_twine, "uv": upload_by_uv}
INSTALLERS = {"pip": install_by_pip, "uv": install_by_uv}


@pytest.mark.parametrize("upload", UPLOADERS.values(), ids=UPLOADERS)
def test_the_wheel_and_the_sdist_are_uploaded_and_nothing_else(
    upload: Callable[[Path, Index, dict[str, str]], None],
    project: Path,
    index: Index,
    build_environ: dict[str, str],
) -> None:
    assert (project / "dist" / "digits-1.0.0.mar").is_file()
    upload(project, index, build_environ)
    assert index.files("digits") == UPLOADED


@pytest.fixture(scope="module", params=SERVERS)
def stocked(
    request: pytest.FixtureRequest,
    project: Path,
    tmp_path_factory: pytest.TempPathFactory,
    build_environ: dict[str, str],
) -> Iterator[Index]:
    """An index with the sample on it."""
    with contextlib.ExitStack() as stack:
        if request.param == "devpi":
            index = request.getfixturevalue("devpi")()
        else:
            index = stack.enter_context(start_pypiserver(tmp_path_factory.mktemp("index")))
        upload_by_twine(project, index, build_environ)
        yield index


@pytest.mark.parametrize("install", INSTALLERS.values(), ids=INSTALLERS)
def test_a_model_is_installed_by_name_and_answers(
    install: Callable[[Environment, Index, dict[str, str]], None],
    stocked: Index,
    tmp_path: Path,
    build_environ: dict[str, str],
) -> None:
    environment = make_environment(tmp_path / "environment")
    install(environment, stocked, build_environ)
    assert json.loads(run(environment.python, "-c", ASK)) == [[["digits", "digits_mar"]], "1.0.0"]
    with start_runner(argv=[str(environment.program("serve-digits"))]) as runner:
        picture = (SAMPLE_PROJECT / "examples" / "seven.png").read_bytes()
        address = f"{runner.url}/predictions/digits"
        request = urllib.request.Request(address, picture, {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = json.load(answer)
    assert said["name"] == "seven"


ASK = """
import json, sys
from hatch_mar.archive.installed import installed_models, open_installed
with open_installed("digits") as archive:
    json.dump([installed_models(), archive.manifest.model_version], sys.stdout)
"""
