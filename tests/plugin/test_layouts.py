"""Projects that lie, are named or are versioned in less usual ways."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.read import open_archive
from tests.support.builds import only, run, sdist_names, wheel_entry_points, wheel_names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Build
    from tests.support.builds import Environment, ProjectMaker

VCS = """\
[build-system]
requires = ["hatchling", "hatch-vcs", "hatch-mar"]
build-backend = "hatchling.build"

[project]
name = "demo"
requires-python = ">=3.11"
dependencies = ["hatch-mar[serve]"]
dynamic = ["version", "scripts", "entry-points"]

[tool.hatch.version]
source = "vcs"
{vcs}
[tool.hatch.build.hooks.mar]
"""
GIT = ("git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")


def commit(directory: Path, tag: str) -> None:
    """Make `directory` a repository with one commit, tagged."""
    run("git", "init", "--quiet", directory)
    run(*GIT, "add", ".", cwd=directory)
    run(*GIT, "commit", "--quiet", "--message", "first", cwd=directory)
    run(*GIT, "tag", tag, cwd=directory)


def test_the_version_may_come_from_git(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(pyproject=VCS.format(vcs=""), files={".gitignore": "dist\n"})
    commit(project, "v2.5.0")
    build(project)
    assert {path.name for path in (project / "dist").iterdir()} == {
        "demo-2.5.0-py3-none-any.whl",
        "demo-2.5.0.mar",
    }
    with open_archive(project / "dist" / "demo-2.5.0.mar") as archive:
        assert archive.manifest.model_version == "2.5.0"


def test_an_sdist_keeps_the_version_that_git_said(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(pyproject=VCS.format(vcs=""), files={".gitignore": "dist\n"})
    commit(project, "v2.5.0")
    (project / "handler.py").write_text("def handle(data, context):\n    return data\n")
    run(*GIT, "commit", "--quiet", "--all", "--message", "second", cwd=project)
    build(project, "sdist", "wheel")
    shutil.unpack_archive(only(project / "dist", "*.tar.gz"), project.parent / "elsewhere")
    unpacked = only(project.parent / "elsewhere", "*")
    build(unpacked)
    for pattern in ("*.whl", "*.mar"):
        mine, again = only(project / "dist", pattern), only(unpacked / "dist", pattern)
        assert "2.5.1.dev1+g" in mine.name
        assert (mine.name, mine.read_bytes()) == (again.name, again.read_bytes())


def test_a_monorepo_has_models_in_its_directories(build: Build, make_project: ProjectMaker) -> None:
    vcs = 'raw-options = { root = ".." }'
    project = make_project(
        pyproject=VCS.format(vcs=vcs), files={"words.txt": "", "../.gitignore": ""}
    )
    repository = project.parent
    (repository / ".gitignore").write_text("dist\n*.txt\n")
    commit(repository, "v1.5.0")
    with (project / "pyproject.toml").open("a") as file:
        file.write('\nextra-files = ["words.txt"]\n')
    run(*GIT, "commit", "--quiet", "--all", "--message", "second", cwd=repository)
    run(*GIT, "tag", "v1.5.1", cwd=repository)
    build(project, "sdist", "wheel")
    assert {path.name for path in (project / "dist").iterdir()} == {
        "demo-1.5.1-py3-none-any.whl",
        "demo-1.5.1.mar",
        "demo-1.5.1.tar.gz",
    }
    assert "words.txt" in sdist_names(project / "dist" / "demo-1.5.1.tar.gz")
    assert "demo_mar/model/words.txt" in wheel_names(only(project / "dist", "*.whl"))


ODD = "größe 1's [beta] & more"


def test_paths_may_hold_anything(build: Build, make_project: ProjectMaker, tmp_path: Path) -> None:
    project = make_project(
        mar='handler = "handler.py:handle"\nextra-files = ["wörter/**"]',
        files={"wörter/a b/日本 (1).txt": "x", "wörter/#1%20.txt": "y"},
    ).rename(tmp_path / ODD)
    build(project, "sdist", "wheel", TMPDIR=str(make_directory(tmp_path / f"scratch {ODD}")))
    names = {"wörter/a b/日本 (1).txt", "wörter/#1%20.txt"}
    assert {f"demo_mar/model/{name}" for name in names} <= wheel_names(
        only(project / "dist", "*.whl")
    )
    assert names <= sdist_names(only(project / "dist", "*.tar.gz"))
    with open_archive(only(project / "dist", "*.mar")) as archive:
        assert names <= set(archive.names())


def make_directory(path: Path) -> Path:
    path.mkdir()
    return path


def test_pip_installs_from_such_a_path(
    make_project: ProjectMaker,
    tmp_path: Path,
    serving_env: Environment,
    build_environ: dict[str, str],
) -> None:
    project = make_project(
        mar='handler = "handler.py:handle"\nextra-files = ["wörter/**"]',
        files={"wörter/日本 (1).txt": "x"},
    ).rename(tmp_path / ODD)
    target = tmp_path / "site packages"
    pip = (
        serving_env.python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
    )
    run(*pip, "--target", target, ".", cwd=project, env=build_environ)
    assert (target / "demo_mar" / "model" / "wörter" / "日本 (1).txt").read_text() == "x"
    seal = json.loads((target / "demo_mar" / "model" / "MAR-INF" / "SEAL.json").read_text())
    assert "wörter/日本 (1).txt" in seal["members"]


def test_sources_may_move_the_authors_own_package(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(
        mar='handler = "corp_demo.service:handle"',
        files={
            "lib/corp_demo/__init__.py": "",
            "lib/corp_demo/service.py": "def handle(data, context):\n    return data\n",
            "handler.py": None,
        },
    )
    with (project / "pyproject.toml").open("a") as file:
        file.write('packages = ["lib/corp_demo"]\n')
        file.write('\n[tool.hatch.build.targets.wheel]\ninclude = ["lib/corp_demo"]\n')
        file.write('[tool.hatch.build.targets.wheel.sources]\n"lib" = ""\n')
    build(project)
    names = wheel_names(only(project / "dist", "*.whl"))
    assert {"corp_demo/service.py", "demo_mar/__main__.py"} <= names
    assert "demo_mar/model/corp_demo/service.py" in names


def test_a_prefix_for_everything_is_refused(refused: Build, make_project: ProjectMaker) -> None:
    project = make_project()
    with (project / "pyproject.toml").open("a") as file:
        file.write('\n[tool.hatch.build.targets.wheel.sources]\n"" = "corp"\n')
    said = refused(project)
    assert "moves 'demo_mar/__init__.py' to 'corp/demo_mar/__init__.py'" in said


@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_in_the_project_becomes_the_file(
    build: Build, make_project: ProjectMaker, tmp_path: Path, absolute: bool
) -> None:
    project = make_project(
        mar='handler = "handler.py:handle"\nweights = "w.bin"',
        files={"runs/best.bin": b"weights", ".gitignore": "runs\n"},
    )
    run("git", "init", "--quiet", project)
    (project / "w.bin").symlink_to(project / "runs" / "best.bin" if absolute else "runs/best.bin")
    build(project, "sdist", "wheel")
    shutil.unpack_archive(only(project / "dist", "*.tar.gz"), tmp_path / "elsewhere")
    unpacked = only(tmp_path / "elsewhere", "*")
    assert not (unpacked / "w.bin").is_symlink()
    assert (unpacked / "w.bin").read_bytes() == b"weights"
    build(unpacked)
    assert (
        only(unpacked / "dist", "*.whl").read_bytes()
        == only(project / "dist", "*.whl").read_bytes()
    )


def test_two_links_to_one_file_are_two_files(
    build: Build, make_project: ProjectMaker, tmp_path: Path
) -> None:
    mar = 'handler = "handler.py:handle"\nextra-files = ["a.bin", "b.bin", "sub/*"]'
    project = make_project(mar=mar, files={"a.bin": b"weights"})
    (project / "b.bin").symlink_to(project / "a.bin")
    (project / "sub").mkdir()
    (project / "sub" / "c.bin").symlink_to("../a.bin")
    build(project, "sdist")
    shutil.unpack_archive(only(project / "dist", "*.tar.gz"), tmp_path / "elsewhere")
    unpacked = only(tmp_path / "elsewhere", "*")
    for name in ("a.bin", "b.bin", "sub/c.bin"):
        assert (unpacked / name).read_bytes() == b"weights"
        assert not (unpacked / name).is_symlink()
    assert {"a.bin", "b.bin", "sub/c.bin"} <= sdist_names(only(project / "dist", "*.tar.gz"))


def test_the_program_may_be_written_down_and_the_model_left_to_us(
    build: Build, make_project: ProjectMaker
) -> None:
    project = make_project()
    pyproject = project / "pyproject.toml"
    text = pyproject.read_text().replace(
        'dynamic = ["scripts", "entry-points"]', 'dynamic = ["entry-points"]'
    )
    script = '[project.scripts]\nserve-demo = "demo_mar.__main__:main"\n\n[tool.hatch'
    pyproject.write_text(text.replace("[tool.hatch", script, 1))
    build(project)
    assert wheel_entry_points(only(project / "dist", "*.whl")) == {
        "console_scripts": {"serve-demo": "demo_mar.__main__:main"},
        "hatch_mar.models": {"demo": "demo_mar"},
    }
