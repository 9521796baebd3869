"""A wheel that mypyc compiled: it is what it says, and passes the tests of what is in it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support.environment import ROOT, pip_environ

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
TESTED = (
    "tests/api",
    "tests/serve",
    "tests/model/cuda/test_pipeline.py",
    "tests/cli/test_logs.py",
    "tests/cli/test_tune.py",
)
UNCONCERNED = ("tests/serve/test_group.py", "tests/serve/test_venvs.py")
"""They take long, over torch's launcher and over installing."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel of this checkout, compiled in a directory of its own."""
    out = tmp_path_factory.mktemp("compiled")
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)]
    environ = {**pip_environ(), "HATCH_BUILD_HOOK_ENABLE_MYPYC": "true"}
    subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
    return next(out.glob("*.whl"))


def test_all_that_is_asked_for_is_compiled_and_there_as_python(wheel: Path) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    hook = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = [name.removeprefix("/") for name in hook["include"]]
    assert [name for name in wanted if name not in names] == []
    assert [name for name in wanted if name.removesuffix(".py") + SUFFIX not in names] == []


def test_the_tag_is_of_this_python_and_this_machine(wheel: Path) -> None:
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name.split("-")[2:4] == [version, version]
    assert "linux" in wheel.name.split("-")[4]


def test_what_is_compiled_passes_the_tests_of_its_rooms(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environ = {**outer, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    # Without the checkout's directory in front, which `-m` puts there.
    python = [sys.executable, "-P"]
    look = "import hatch_mar.serve.pool as pool; print(pool.__file__)"
    found = subprocess.check_output([*python, "-c", look], env=environ, text=True, cwd=ROOT)
    assert found.startswith(str(site))
    assert found.strip().endswith(SUFFIX)
    # pytest's own path would put the checkout first: the last of these comes to the front.
    options = ["-q", "-p", "no:cacheprovider", "-o", f"pythonpath={ROOT} {site}", "-n", "0"]
    options += [f"--ignore={path}" for path in UNCONCERNED]
    marks = ["-m", "not slow and not gpu"]
    ran = subprocess.run(
        [*python, "-m", "pytest", *options, *marks, *TESTED],
        check=False,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-5000:]
