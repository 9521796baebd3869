"""Environments of single models, made by real installers out of a real index."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from threading import Thread

import pytest

from hatch_mar.archive.manifest import Manifest
from hatch_mar.errors import RequirementsError
from hatch_mar.serve import Deployment, Service
from hatch_mar.serve.environments.installers import Runs, conceal, find_uv
from hatch_mar.serve.environments.venvs import Environments
from tests.support.builds import clean_environ
from tests.support.indexes import start_pypiserver
from tests.support.packages import make_wheel

Maker = Callable[..., Deployment]
INSTALLERS = {"pip": "PIP_INDEX_URL", "uv": "UV_DEFAULT_INDEX"}
REPORTER = """
    import json, sys
    import tinylib, torch

    def handle(data, context):
        found = {"tinylib": tinylib.version, "torch": torch.__file__, "python": sys.executable}
        return None if data is None else [found for row in data]
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of an index that has the packages of these tests."""
    directory = tmp_path_factory.mktemp("index")
    with start_pypiserver(directory) as server:
        packages = directory / "packages"
        make_wheel(packages, "tinylib", "1.0")
        make_wheel(packages, "tinylib", "2.0")
        make_wheel(packages, "useful", requires=["torch", "tinylib<2", "click"])
        make_wheel(packages, "wants-other-click".replace("-", "_"), requires=["click<1"])
        make_wheel(packages, "wants_other_torch", requires=["torch<1"])
        make_wheel(packages, "click", "0.5")
        make_wheel(packages, "torch", "0.1")
        yield server.simple


@pytest.fixture(params=["pip", "uv"])
def environ(request: pytest.FixtureRequest, index: str, tmp_path: Path) -> dict[str, str]:
    """Return an environment in which an installer is used that knows the index."""
    cache = {f"{request.param.upper()}_CACHE_DIR": str(tmp_path / "downloads")}
    kept = {name: text for name, text in clean_environ().items() if not name.startswith("UV_")}
    kept = {name: text for name, text in kept.items() if not name.startswith("PIP_")}
    return {**kept, **cache, INSTALLERS[request.param]: index}


@pytest.fixture
def make(tmp_path: Path, environ: dict[str, str]) -> Callable[..., Environments]:
    """Return a function that makes what makes environments."""

    def make(*, install: bool = True, **more: str) -> Environments:
        return Environments(
            install=install, directory=tmp_path / "cache", environ={**environ, **more}
        )

    return make


@pytest.fixture
def requiring(make_deployment: Maker) -> Maker:
    """Return a function that makes a deployment with requirements."""

    def make(text: str, source: str = REPORTER, name: str = "m") -> Deployment:
        deployment = make_deployment(source, name=name)
        (deployment.directory / "requirements.txt").write_text(text)
        manifest = Manifest(model_name=name, requirements_file="requirements.txt")
        return replace(deployment, manifest=manifest)

    return make


def ask(deployment: Deployment, code: str) -> object:
    assert deployment.python is not None
    output = subprocess.check_output([deployment.python, "-c", code], text=True)
    return json.loads(output)


def installed(deployment: Deployment) -> set[str]:
    """Return what is in the environment itself."""
    assert deployment.python is not None
    (site,) = Path(deployment.python).parents[1].glob("lib/python*/site-packages")
    return {path.stem.partition("-")[0] for path in site.glob("*.dist-info")}


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("cache/environments/*") if path.suffix != ".lock")


def test_a_model_runs_in_an_environment_of_its_own(
    make: Callable[..., Environments],
    requiring: Maker,
    run_service: Callable[..., None],
    submit: Callable[..., object],
) -> None:
    deployment = make().equip(requiring("useful>=1\n# a comment\ntorch\n"))
    assert installed(deployment) == {"useful", "tinylib"}
    assert not deployment.warnings

    async def test(service: Service) -> None:
        reply = await submit(service, b"")  # type: ignore[misc]
        found = json.loads(bytes(reply.body))
        assert found["tinylib"] == "1.0"
        assert found["torch"].startswith(sysconfig.get_path("purelib"))
        assert found["python"] == deployment.python

    run_service(test, deployment)


def test_what_is_here_already_needs_no_environment(
    make: Callable[..., Environments], requiring: Maker, tmp_path: Path
) -> None:
    deployment = requiring("click>=8\nnumpy; python_version < '3'\n")
    assert make().equip(deployment) is deployment
    assert not (tmp_path / "cache").exists()


def test_what_the_runner_has_too_old_is_shadowed(
    make: Callable[..., Environments], requiring: Maker
) -> None:
    deployment = make().equip(requiring("wants_other_click\n"))
    assert installed(deployment) == {"wants_other_click", "click"}
    assert ask(deployment, "import click; print('\"' + click.version + '\"')") == "0.5"


def test_torch_is_the_runners(make: Callable[..., Environments], requiring: Maker) -> None:
    deployment = make().equip(requiring("torch==0.1\ntinylib==2.0\n"))
    assert installed(deployment) == {"tinylib"}
    (warning,) = deployment.warnings
    assert warning == (
        f"requirements.txt: torch==0.1 ({version('torch')} is installed) is passed over: "
        "what the runner has is used"
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [("nosuch>=3\n", "nosuch"), ("tinylib>=9\n", "tinylib"), ("wants_other_torch\n", "torch")],
)
def test_what_cannot_be_installed(
    *,
    text: str,
    named: str,
    make: Callable[..., Environments],
    requiring: Maker,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(RequirementsError) as caught:
        make().equip(requiring(text))
    assert str(caught.value).startswith("m: requirements.txt: cannot be installed: ")
    assert named in str(caught.value)
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert named in record.getMessage()
    assert left(tmp_path) == []
    assert [path.name for path in (tmp_path / "m-1.0").iterdir() if path.name[0] == "."] == []


def test_it_is_made_once(
    make: Callable[..., Environments], requiring: Maker, tmp_path: Path
) -> None:
    deployments = [requiring("tinylib\n", name=f"m{number}") for number in range(3)]
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda one: make().equip(one), deployments))
    (python,) = {one.python for one in made}
    assert python is not None
    assert len(left(tmp_path)) == 2  # and the link to it
    before = Path(python).parents[1].stat().st_mtime_ns
    assert make(HATCH_MAR_OFFLINE="1").equip(deployments[0]).python == python
    assert Path(python).parents[1].stat().st_mtime_ns == before
    other = make().equip(requiring("tinylib<2\n", name="other"))
    assert other.python != python


def test_many_processes_make_it_once(
    environ: dict[str, str], requiring: Maker, tmp_path: Path
) -> None:
    directory = requiring("tinylib\n").directory
    code = f"""
from pathlib import Path
from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.modelconfig import read_model_config
from hatch_mar.serve import Deployment
from hatch_mar.serve.environments.venvs import Environments
print(Environments(install=True, directory=Path({str(tmp_path / "cache")!r})).equip(Deployment(
    name="m", version="1", directory=Path({str(directory)!r}), handler="h",
    config=read_model_config({{}}),
    manifest=Manifest(model_name="m", requirements_file="requirements.txt"))).python)
"""
    environ = {**environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    pythons = {process.communicate()[0] for process in running}
    assert len(pythons) == 1
    assert len(left(tmp_path)) == 2


def test_what_a_maker_that_was_killed_has_left_is_removed(
    make: Callable[..., Environments], requiring: Maker, tmp_path: Path
) -> None:
    deployment = requiring("tinylib\n")
    python = make().equip(deployment).python
    assert python is not None
    (link,) = (path for path in (tmp_path / "cache/environments").iterdir() if path.is_symlink())
    link.unlink()
    again = make().equip(deployment).python
    assert again is not None
    assert not Path(python).exists()
    assert Path(again).exists()


def test_offline_nothing_is_installed(
    make: Callable[..., Environments], requiring: Maker, tmp_path: Path
) -> None:
    with pytest.raises(RequirementsError) as caught:
        make(HATCH_MAR_OFFLINE="1").equip(requiring("tinylib>=2\nclick\n"))
    assert str(caught.value) == (
        "m: requirements.txt: tinylib>=2 (not installed): nothing is installed while "
        "HATCH_MAR_OFFLINE is set; start once where there is a network, or unset it"
    )
    assert left(tmp_path) == []


def test_a_wheel_in_the_archive(make: Callable[..., Environments], requiring: Maker) -> None:
    deployment = requiring("./carried-3.0-py3-none-any.whl\n")
    make_wheel(deployment.directory, "carried", "3.0")
    made = make().equip(deployment)
    assert ask(made, "import carried; print(repr(carried.version).replace(chr(39), chr(34)))")
    make_wheel(deployment.directory, "carried", "3.0", requires=["click"])
    assert make().equip(deployment).python != made.python


def test_by_default_what_is_missing_is_said(
    make: Callable[..., Environments], requiring: Maker
) -> None:
    deployment = make(install=False).equip(requiring("tinylib>=2\nclick<1\nnumpy\n"))
    assert deployment.python is None
    (warning,) = deployment.warnings
    assert warning == (
        f"requirements.txt: not here: tinylib>=2 (not installed), click<1 ({version('click')} "
        "is installed); pip install 'tinylib>=2' 'click<1', or start with "
        "--install-requirements"
    )


def test_nothing_is_said_where_nothing_is_missing(
    make: Callable[..., Environments], requiring: Maker, make_deployment: Maker
) -> None:
    for deployment in (requiring("numpy\n"), make_deployment(name="bare")):
        assert make(install=False).equip(deployment) is deployment


@pytest.mark.parametrize("environ", ["pip"], indirect=True)
def test_an_installation_ends_with_the_runner(
    make: Callable[..., Environments], requiring: Maker, tmp_path: Path
) -> None:
    deployment = requiring("./slow\n")
    (deployment.directory / "slow").mkdir()
    (deployment.directory / "slow" / "setup.py").write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'building')!r}).write_text(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    environments = make(PIP_NO_BUILD_ISOLATION="0", PIP_USE_PEP517="0")
    errors: list[RequirementsError] = []

    def work() -> None:
        try:
            environments.equip(deployment)
        except RequirementsError as error:
            errors.append(error)

    thread = Thread(target=work)
    thread.start()
    while thread.is_alive() and not (tmp_path / "building").exists():
        thread.join(0.02)
    environments.close()
    thread.join(30)
    assert not thread.is_alive()
    assert "the runner stops" in str(errors[0]) or not (tmp_path / "building").exists()
    assert left(tmp_path) == []


def test_it_does_not_wait_for_ever(tmp_path: Path) -> None:
    runs = Runs(dict(os.environ), patience=0.1)
    with pytest.raises(Exception, match=r"took more than 0\.1 seconds"):
        runs.run([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path)


def test_a_cache_that_cannot_be_written(requiring: Maker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environments = Environments(install=True, directory=tmp_path / "file", environ={})
    with pytest.raises(RequirementsError, match="cannot be written: Not a directory; set HATCH"):
        environments.equip(requiring("tinylib\n"))


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, True),
        ({"PIP_INDEX_URL": "http://i"}, False),
        ({"PIP_INDEX_URL": "http://i", "UV_INDEX": "http://i"}, True),
        ({"PIP_CONFIG_FILE": __file__}, False),
    ],
)
def test_uv_is_used_unless_pip_alone_is_set_up(
    environ: dict[str, str], found: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if Path("/etc/pip.conf").exists() and not any(name.startswith("UV") for name in environ):
        found = False
    assert (find_uv({"PATH": os.environ["PATH"], **environ}) is not None) is found


def test_no_secret_is_told() -> None:
    text = "Looking in https://user:pass@host/simple?token=abc, http://tok@h:1/x\nok"
    assert not re.search("user|pass|tok@|abc", conceal(text))
    assert conceal(text).endswith("http://***@h:1/x\nok")
