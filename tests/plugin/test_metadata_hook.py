"""The entry points as part of the metadata that every tool sees."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.builds import PYPROJECT, Environment, only, run, wheel_entry_points

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.builds import ProjectMaker

HEAD = PYPROJECT.format(name="demo") + "\n[tool.hatch.metadata.hooks.mar]\n"
HANDLER = 'handler = "handler.py:handle"\n'
OURS = {"hatch_mar.models": {"demo": "demo_mar"}}

Metadata = dict[str, dict[str, object]]


@pytest.fixture
def metadata(serving_env: Environment, build_environ: dict[str, str]) -> Callable[..., Metadata]:
    """Return what `hatchling metadata` prints for a project."""

    def metadata(project: Path, **variables: str) -> Metadata:
        command = (serving_env.python, "-m", "hatchling", "metadata")
        found: Metadata = json.loads(run(*command, cwd=project, env={**build_environ, **variables}))
        return found

    return metadata


def test_they_are_in_the_metadata(
    metadata: Callable[..., Metadata], make_project: ProjectMaker
) -> None:
    found = metadata(make_project(pyproject=HEAD))
    assert found["scripts"] == {"serve-demo": "demo_mar.__main__:main"}
    assert found["entry-points"] == OURS


@pytest.mark.parametrize(
    ("mar", "variables", "names"),
    [
        ('name = "other"', {}, ("serve-other", "other")),
        ('wheel.script = "ask-{name}"', {}, ("ask-demo", "demo")),
        ("wheel.script = false", {}, (None, "demo")),
        ("wheel.script = true", {}, ("serve-demo", "demo")),
        ('name = "other"', {"HATCH_MAR_NAME": "third"}, ("serve-third", "third")),
        ("", {"HATCH_MAR_WHEEL_SCRIPT": "false"}, (None, "demo")),
        ("", {"HATCH_MAR_WHEEL_SCRIPT": "ask"}, ("ask", "demo")),
    ],
)
def test_they_have_the_names_that_the_build_hook_uses(
    metadata: Callable[..., Metadata],
    build: Callable[..., str],
    make_project: ProjectMaker,
    *,
    mar: str,
    variables: dict[str, str],
    names: tuple[str | None, str],
) -> None:
    script, model = names
    project = make_project(pyproject=HEAD, mar=HANDLER + mar)
    found = metadata(project, **variables)
    assert list(found.get("scripts", {})) == ([script] if script else [])
    assert found["entry-points"] == {"hatch_mar.models": {model: "demo_mar"}}
    build(project, **variables)
    in_wheel = wheel_entry_points(only(project / "dist", "*.whl"))
    assert in_wheel.pop("hatch_mar.models") == {model: "demo_mar"}
    assert in_wheel.pop("console_scripts", {}) == found.get("scripts", {})
    assert in_wheel == {}


def test_the_build_hooks_own_table_counts(
    metadata: Callable[..., Metadata], make_project: ProjectMaker
) -> None:
    head = HEAD.replace(
        "[tool.hatch.build.hooks.mar]", '[tool.hatch.build.targets.wheel.hooks.mar]\nname = "x"'
    )
    assert list(metadata(make_project(pyproject=head))["scripts"]) == ["serve-x"]


def test_a_hatch_toml_counts(metadata: Callable[..., Metadata], make_project: ProjectMaker) -> None:
    head = HEAD.replace("[tool.hatch.build.hooks.mar]", "")
    project = make_project(pyproject=head, files={"hatch.toml": '[build.hooks.mar]\nname = "x"\n'})
    assert list(metadata(project)["scripts"]) == ["serve-x"]


def test_only_fields_that_are_dynamic_are_touched(
    metadata: Callable[..., Metadata], make_project: ProjectMaker
) -> None:
    head = HEAD.replace('"scripts", ', "")
    found = metadata(make_project(pyproject=head + '\n[project.scripts]\nmine = "a:b"\n'))
    assert found["scripts"] == {"mine": "a:b"}
    assert found["entry-points"] == OURS


@pytest.mark.parametrize("text", ["build = 3", "[build.targets]\nwheel = 3", "[build]\nhooks = []"])
def test_a_hatch_toml_that_makes_no_sense_is_told_so(
    serving_env: Environment, build_environ: dict[str, str], make_project: ProjectMaker, text: str
) -> None:
    project = make_project(pyproject=HEAD, files={"hatch.toml": text})
    command = (serving_env.python, "-m", "hatchling", "metadata")
    said = subprocess.run(
        command, cwd=project, env=build_environ, check=False, capture_output=True, text=True
    )
    assert said.returncode == 1
    assert said.stderr.startswith(
        "hatch-mar: 1 problem\n  pyproject.toml: tool.hatch.build.hooks.mar"
    )
    assert "add an empty one: [tool.hatch.build.hooks.mar]" in said.stderr
    assert "Traceback" not in said.stderr
