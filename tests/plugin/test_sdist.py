"""What the build hook puts into an sdist, and what is built from one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.builds import only, run, sdist_names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Build
    from tests.support.builds import ProjectMaker


def unpack(project: Path) -> Path:
    """Unpack the project's sdist far from the project, as front ends do."""
    sdist = only(project / "dist", "*.tar.gz")
    target = project.parent / "elsewhere"
    target.mkdir()
    run("tar", "-xzf", sdist, "-C", target)
    return only(target, "*")


def test_it_holds_weights_that_git_ignores(build: Build, colours: Path) -> None:
    build(colours, "sdist")
    assert sdist_names(only(colours / "dist", "*.tar.gz")) == {
        ".gitignore",
        "PKG-INFO",
        "pyproject.toml",
        "src/colours/__init__.py",
        "src/colours/naming.py",
        "src/colours/service.py",
        "train.py",
        "weights/palette.json",
    }


def test_it_holds_what_the_author_would_leave_out(build: Build, shout: Path) -> None:
    with (shout / "pyproject.toml").open("a") as file:
        file.write('\n[tool.hatch.build.targets.sdist]\nonly-include = ["pyproject.toml"]\n')
    build(shout, "sdist")
    assert sdist_names(only(shout / "dist", "*.tar.gz")) == {
        "PKG-INFO",
        "handler.py",
        "model-config.yaml",
        "pyproject.toml",
        "words/loud.txt",
    }


def test_it_comes_without_an_archive(build: Build, shout: Path) -> None:
    build(shout, "sdist")
    assert {path.name for path in (shout / "dist").iterdir()} == {"shout-0.3.tar.gz"}


def test_a_wheel_from_it_is_the_wheel_from_the_tree(build: Build, colours: Path) -> None:
    build(colours, "sdist", "wheel")
    unpacked = unpack(colours)
    build(unpacked)
    for pattern in ("*.whl", "*.mar"):
        mine, theirs = only(colours / "dist", pattern), only(unpacked / "dist", pattern)
        assert mine.name == theirs.name
        assert mine.read_bytes() == theirs.read_bytes()


def test_a_sources_setting_that_moves_files_is_refused(
    refused: Build, make_project: ProjectMaker
) -> None:
    project = make_project()
    with (project / "pyproject.toml").open("a") as file:
        file.write('\n[tool.hatch.build.targets.sdist.sources]\n"" = "inner/"\n')
    said = refused(project, "sdist")
    assert (
        "tool.hatch.build.targets.sdist.sources: moves 'handler.py' to 'inner/handler.py'" in said
    )


def test_a_relative_directory_would_be_lost_with_the_sdist(
    build: Build, refused: Build, shout: Path
) -> None:
    build(shout, "sdist")
    said = refused(unpack(shout), HATCH_MAR_DIR="out")
    assert "HATCH_MAR_DIR: 'out' is relative, and this build runs in an unpacked sdist" in said
