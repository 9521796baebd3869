"""The sample project under every front end, as its users build and install it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.builds import (
    SAMPLE_PROJECT,
    Environment,
    Shared,
    copy_project,
    make_environment,
    only,
    run,
    sdist_names,
    wheel_names,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.plugin.conftest import Build
    from tests.support.builds import Celsius

MODEL = {
    "base_handler.py",
    "digits.pt",
    "handler.py",
    "index_to_name.json",
    "model-config.yaml",
    "requirements.txt",
    "sources.tar",
    "MAR-INF/MANIFEST.json",
    "MAR-INF/SEAL.json",
    "MAR-INF/examples/four.json",
    "MAR-INF/examples/four.png",
    "MAR-INF/examples/pixels.answer.json",
    "MAR-INF/examples/pixels.json",
    "MAR-INF/examples/seven.json",
    "MAR-INF/examples/seven.png",
}
WHEEL = {
    "digits_mar/__init__.py",
    "digits_mar/__main__.py",
    *(f"digits_mar/model/{name}" for name in MODEL),
    *(f"digits-1.0.0.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL")),
    "digits-1.0.0.dist-info/entry_points.txt",
    "digits-1.0.0.dist-info/sboms/digits_mar.cdx.json",
}
WHEEL_FILE, SDIST_FILE, MAR_FILE = (
    "digits-1.0.0-py3-none-any.whl",
    "digits-1.0.0.tar.gz",
    "digits-1.0.0.mar",
)

UV_BUILD = ["uv", "build", "--python", sys.executable]


class FrontEnd(NamedTuple):
    """A way to build, and what it leaves in the directory it is given."""

    command: Callable[[Path], list[str | Path]]
    leaves: set[str]


BOTH = {WHEEL_FILE, SDIST_FILE, MAR_FILE}
FRONT_ENDS = {
    "hatch build": FrontEnd(lambda out: ["hatch", "build", out], BOTH),
    "pip wheel": FrontEnd(
        lambda out: [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "-w", out],
        {WHEEL_FILE},
    ),
    "python -m build": FrontEnd(lambda out: [sys.executable, "-m", "build", "--outdir", out], BOTH),
    "uv build": FrontEnd(lambda out: [*UV_BUILD, "--out-dir", out], {*BOTH, ".gitignore"}),
}


@pytest.fixture(scope="module", params=FRONT_ENDS)
def built(
    request: pytest.FixtureRequest, shared: Shared, build_environ: dict[str, str]
) -> tuple[FrontEnd, Path]:
    """What one front end made of a copy of the sample project."""
    front_end = FRONT_ENDS[request.param]

    def make(into: Path) -> None:
        project = copy_project(SAMPLE_PROJECT, into / "digits")
        run(*front_end.command(into / "out"), cwd=project, env=build_environ)

    return front_end, shared.once(request.param.replace(" ", "-"), make) / "out"


def test_it_leaves_exactly_the_files_it_should(built: tuple[FrontEnd, Path]) -> None:
    front_end, out = built
    assert {path.name for path in out.iterdir()} == front_end.leaves


def test_its_wheel_holds_exactly_the_files_it_should(built: tuple[FrontEnd, Path]) -> None:
    assert wheel_names(built[1] / WHEEL_FILE) == WHEEL


def test_its_wheel_and_archive_are_the_same_bytes_as_everybodys(
    built: tuple[FrontEnd, Path], sample_wheel: Path, sample_mar: Path
) -> None:
    front_end, out = built
    assert (out / WHEEL_FILE).read_bytes() == sample_wheel.read_bytes()
    if MAR_FILE in front_end.leaves:
        assert (out / MAR_FILE).read_bytes() == sample_mar.read_bytes()


def test_its_sdist_holds_every_file_of_the_model(built: tuple[FrontEnd, Path]) -> None:
    front_end, out = built
    if SDIST_FILE in front_end.leaves:
        tracked = run("git", "ls-files", cwd=SAMPLE_PROJECT).split()
        assert sdist_names(out / SDIST_FILE) == {*tracked, "PKG-INFO"}


def test_a_tree_and_an_sdist_make_the_same_archive_under_pip(
    tmp_path: Path, build_environ: dict[str, str], sample_dist: Path, sample_mar: Path
) -> None:
    run(
        *(sys.executable, "-m", "pip", "wheel", sample_dist / SDIST_FILE),
        *("--no-deps", "-w", tmp_path / "out"),
        env={**build_environ, "HATCH_MAR_DIR": str(tmp_path / "out")},
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {WHEEL_FILE, MAR_FILE}
    assert (tmp_path / "out" / MAR_FILE).read_bytes() == sample_mar.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_project_without_a_package_builds_like_any_other(
    front_end: str, shout: Path, tmp_path: Path, build: Build, build_environ: dict[str, str]
) -> None:
    build(shout)
    run(*FRONT_ENDS[front_end].command(tmp_path / "out"), cwd=shout, env=build_environ)
    assert_same_files(tmp_path / "out", shout / "dist")


@pytest.mark.slow
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_weights_by_reference_build_like_any_other(
    front_end: str, celsius: Celsius, tmp_path: Path, build: Build, build_environ: dict[str, str]
) -> None:
    build(celsius.project)
    run(*FRONT_ENDS[front_end].command(tmp_path / "out"), cwd=celsius.project, env=build_environ)
    assert_same_files(tmp_path / "out", celsius.project / "dist")
    assert celsius.requests == []


def assert_same_files(out: Path, dist: Path) -> None:
    """Check that what a front end left in `out` is, file by file, what is in `dist`."""
    made = [path for path in out.iterdir() if path.suffix in (".whl", ".mar")]
    assert made
    for path in made:
        assert path.read_bytes() == (dist / path.name).read_bytes()


ASK = """
import json, sys
from importlib.metadata import distribution
from hatch_mar.archive.installed import open_installed
files = {str(file) for file in distribution("digits").files if ".pyc" not in str(file)}
with open_installed("digits") as archive:
    answer = {"kind": archive.kind, "names": sorted(archive.names()), "files": sorted(files)}
    answer["handler"] = str(archive.file("handler.py"))
    answer["examples"] = len(archive.seal.examples)
json.dump(answer, sys.stdout)
"""


@pytest.fixture(params=[".", "-e ."])
def installed(
    request: pytest.FixtureRequest, tmp_path: Path, build_environ: dict[str, str]
) -> tuple[str, Path, Environment]:
    """The sample project, installed by pip with all that it depends on."""
    project = copy_project(SAMPLE_PROJECT, tmp_path / "digits")
    environment = make_environment(tmp_path / "environment")
    run(
        *(sys.executable, "-m", "pip", "--python", environment.python, "install"),
        *request.param.split(),
        cwd=project,
        env=build_environ,
    )
    return request.param, project, environment


def test_pip_installs_the_program_and_the_model(
    installed: tuple[str, Path, Environment],
) -> None:
    how, project, environment = installed
    assert environment.program("serve-digits").is_file()
    answer = json.loads(run(environment.python, "-c", ASK))
    assert answer["examples"] == 3
    if how == ".":
        assert answer["kind"] == "dir"
        assert WHEEL - set(answer["files"]) == set()
        assert set(answer["names"]) == MODEL
    else:
        assert answer["kind"] == "editable"
        assert answer["handler"] == str(project / "handler.py")
        assert set(answer["names"]) == MODEL - {"MAR-INF/SEAL.json"}


def test_the_archive_can_be_had_from_a_wheel_that_pip_built(
    tmp_path: Path, sample_wheel: Path, sample_mar: Path, serving_env: Environment
) -> None:
    run(serving_env.program("hatch-mar"), "export", sample_wheel, "-d", tmp_path)
    assert only(tmp_path, "*").name == sample_mar.name
    assert only(tmp_path, "*").read_bytes() == sample_mar.read_bytes()


MISTAKES = {
    "hatch": ["hatch", "build"],
    "pip": [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "-w", "dist"],
    "build": [sys.executable, "-m", "build"],
    "uv": UV_BUILD,
}


@pytest.mark.parametrize("front_end", MISTAKES)
def test_mistakes_are_one_message_without_a_traceback(
    front_end: str, tmp_path: Path, build_environ: dict[str, str]
) -> None:
    project = copy_project(SAMPLE_PROJECT, tmp_path / "digits")
    pyproject = project / "pyproject.toml"
    text = pyproject.read_text().replace('"hatch-mar[serve]", ', "")
    pyproject.write_text(text.replace('"handler.py"', '"handlr.py"').replace("[tool.mar]", EXTRA))
    out = run(*MISTAKES[front_end], cwd=project, env=build_environ, expect=None)
    assert "hatch-mar: 3 problems" in out
    for said in ("tool.mar.batchsize", "handlr.py", 'add "hatch-mar[serve]"'):
        assert out.count(said) == 1, out
    assert "Traceback" not in out
    assert not list(project.glob("dist/digits*"))


EXTRA = "[tool.mar]\nbatchsize = 4"
