"""Builds that skip the isolation, and the seconds it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.builds import PROJECTS, Environment, copy_project, run

if TYPE_CHECKING:
    from pathlib import Path


class Build(Protocol):
    """`hatchling build`, into the project's `dist`, in an environment that has hatch-mar."""

    def __call__(
        self,
        project: Path,
        *targets: str,
        arguments: tuple[str, ...] = (),
        expect: int = 0,
        **variables: str,
    ) -> str:
        """Build `targets` (the wheel if none is named) and return what was printed."""
        ...


@pytest.fixture
def build(serving_env: Environment, build_environ: dict[str, str]) -> Build:
    """Build a project; another exit status than `expect` fails the test."""

    def build(
        project: Path,
        *targets: str,
        arguments: tuple[str, ...] = (),
        expect: int = 0,
        **variables: str,
    ) -> str:
        command = _command(serving_env, targets, arguments)
        return run(*command, cwd=project, env={**build_environ, **variables}, expect=expect)

    return build


@pytest.fixture
def refused(serving_env: Environment, build_environ: dict[str, str]) -> Build:
    """Build a project that must be refused with a message, no traceback, and nothing written."""

    def refused(
        project: Path,
        *targets: str,
        arguments: tuple[str, ...] = (),
        expect: int = 1,
        **variables: str,
    ) -> str:
        before = _files(project)
        command = _command(serving_env, targets, arguments)
        said = run(*command, cwd=project, env={**build_environ, **variables}, expect=expect)
        assert "Traceback" not in said
        assert _files(project) == before
        return said

    return refused


def _files(project: Path) -> set[Path]:
    """Return the files below `project`, without what Python writes where it imports."""
    files = {path for path in project.rglob("*") if path.is_file()}
    return {path for path in files if path.parent.name != "__pycache__"}


def _command(
    environment: Environment, targets: tuple[str, ...], arguments: tuple[str, ...]
) -> list[str | Path]:
    chosen = [part for target in targets or ("wheel",) for part in ("-t", target)]
    return [environment.python, "-m", "hatchling", "build", *chosen, *arguments]


@pytest.fixture
def shout(tmp_path: Path) -> Path:
    """A project without a Python package."""
    return copy_project(PROJECTS / "shout", tmp_path / "shout")


@pytest.fixture
def colours(tmp_path: Path, serving_env: Environment) -> Path:
    """A project with a Python package of its own, a dynamic version and git-ignored weights."""
    project = copy_project(PROJECTS / "colours", tmp_path / "colours")
    run(serving_env.python, project / "train.py")
    run("git", "init", "--quiet", project)
    return project
