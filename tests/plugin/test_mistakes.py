"""Projects that must not be built, and the line to paste."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.builds import PYPROJECT, Environment, run

if TYPE_CHECKING:
    from tests.plugin.conftest import Build
    from tests.support.builds import ProjectMaker

RUNNER = '"hatch-mar[serve]"'
DYNAMIC = 'dynamic = ["scripts", "entry-points"]'
HEAD = PYPROJECT.format(name="demo")


@pytest.mark.parametrize("target", ["wheel", "sdist"])
@pytest.mark.parametrize(
    ("dependency", "remedy"),
    [
        ('"torch"', 'add "hatch-mar[serve]"'),
        ('"Hatch_Mar>=0.1"', 'write "hatch-mar[serve]" instead of "hatch-mar>=0.1"'),
    ],
)
def test_a_wheel_without_the_runner(
    refused: Build, make_project: ProjectMaker, target: str, dependency: str, remedy: str
) -> None:
    said = refused(make_project(pyproject=HEAD.replace(RUNNER, dependency)), target)
    assert f"pyproject.toml: project.dependencies: the wheel brings no runner; {remedy}" in said


def test_no_entry_points_at_all(refused: Build, make_project: ProjectMaker) -> None:
    said = refused(make_project(pyproject=HEAD.replace(DYNAMIC, "")))
    assert (
        "pyproject.toml: project.scripts: no entry point 'serve-demo'; add to [project]: "
        'dynamic = ["scripts", "entry-points"]'
    ) in said
    assert "project.entry-points: no entry point 'demo'" in said


def test_entry_points_beside_a_dynamic_version(refused: Build, make_project: ProjectMaker) -> None:
    head = HEAD.replace('version = "1.0"', "").replace(DYNAMIC, 'dynamic = ["version"]')
    head += '[tool.hatch.version]\npath = "version.py"\n'
    said = refused(make_project(pyproject=head, files={"version.py": '__version__ = "3"\n'}))
    assert 'add to [project]: dynamic = ["version", "scripts", "entry-points"]' in said


def test_scripts_of_the_authors_without_ours(refused: Build, make_project: ProjectMaker) -> None:
    head = HEAD.replace(DYNAMIC, 'dynamic = ["entry-points"]')
    said = refused(make_project(pyproject=f'{head}\n[project.scripts]\nx = "y:z"\n'))
    assert 'add to [project.scripts]: serve-demo = "demo_mar.__main__:main"' in said
    assert "1 problem" in said


def test_entry_points_of_the_authors_without_ours(
    refused: Build, make_project: ProjectMaker
) -> None:
    head = HEAD.replace(DYNAMIC, 'dynamic = ["scripts"]')
    said = refused(make_project(pyproject=f'{head}\n[project.entry-points.other]\nx = "y"\n'))
    assert 'add to [project.entry-points."hatch_mar.models"]: demo = "demo_mar"' in said
    assert "1 problem" in said


def test_a_program_of_our_name_that_starts_something_else(
    refused: Build, make_project: ProjectMaker
) -> None:
    head = HEAD.replace(DYNAMIC, 'dynamic = ["entry-points"]')
    said = refused(make_project(pyproject=f'{head}\n[project.scripts]\nserve-demo = "y:z"\n'))
    assert (
        "project.scripts.serve-demo: 'y:z' is not what the wheel has; "
        'write serve-demo = "demo_mar.__main__:main"'
    ) in said


@pytest.mark.parametrize("taken", ["demo_mar/__init__.py", "demo_mar/other.py", "demo_mar.py"])
def test_a_package_where_the_generated_one_goes(
    refused: Build, make_project: ProjectMaker, taken: str
) -> None:
    head = f'{HEAD}\n[tool.hatch.build.targets.wheel]\ninclude = ["/demo_mar*"]\n'
    said = refused(make_project(pyproject=head, files={taken: ""}))
    assert f"the wheel already has '{taken}'" in said


def test_a_file_forced_to_where_the_generated_package_goes(
    refused: Build, make_project: ProjectMaker
) -> None:
    head = f'{HEAD}\n[tool.hatch.build.force-include]\n"handler.py" = "demo_mar/h.py"\n'
    assert "the wheel already has 'demo_mar/h.py'" in refused(make_project(pyproject=head))


def test_a_sources_setting_that_moves_the_generated_package(
    refused: Build, make_project: ProjectMaker
) -> None:
    head = f'{HEAD}\n[tool.hatch.build.targets.wheel.sources]\n"" = "inner/"\n'
    said = refused(make_project(pyproject=head))
    assert "tool.hatch.build.targets.wheel.sources: moves 'demo_mar/__init__.py'" in said


def test_a_metadata_hook_without_the_build_hook(refused: Build, make_project: ProjectMaker) -> None:
    head = HEAD.replace("[tool.hatch.build.hooks.mar]", "[tool.hatch.metadata.hooks.mar]")
    said = refused(make_project(pyproject=head))
    assert "pyproject.toml: tool.hatch.build.hooks.mar: no such table" in said


def test_all_mistakes_are_one_message(refused: Build, make_project: ProjectMaker) -> None:
    project = make_project(
        pyproject=HEAD.replace(RUNNER, ""),
        mar='handler = "handlr.py:handle"\nextra-fils = []\narchive = { fromat = "mar" }',
        files={"model-config.yaml": "batchSize: many\n"},
    )
    said = refused(project)
    assert said.splitlines()[0] == "hatch-mar: 5 problems"
    for key in ("handler", "extra-fils", "archive.fromat"):
        assert f"pyproject.toml: tool.mar.{key}: " in said
    assert "model-config.yaml: batchSize: " in said
    assert "pyproject.toml: project.dependencies: " in said


@pytest.mark.parametrize("target", ["wheel", "sdist", "mar"])
def test_the_metadata_hook_leaves_it_to_others_to_say_what_is_wrong(
    refused: Build, make_project: ProjectMaker, target: str
) -> None:
    head = f"{HEAD}\n[tool.hatch.metadata.hooks.mar]\n"
    said = refused(make_project(pyproject=head, mar='handler = "h.py"\nname = 7'), target)
    assert said.splitlines()[0] == "hatch-mar: 2 problems"
    assert "tool.mar.name" in said
    assert "tool.mar.handler" in said


def test_a_file_that_may_not_be_written_is_no_traceback(
    refused: Build, make_project: ProjectMaker
) -> None:
    project = make_project(files={"occupied": ""})
    assert "hatch-mar: " in refused(project, HATCH_MAR_DIR="occupied")


def test_debugging_shows_the_traceback(
    build_environ: dict[str, str], serving_env: Environment, make_project: ProjectMaker
) -> None:
    said = run(
        *(serving_env.python, "-m", "hatchling", "build", "-t", "wheel"),
        cwd=make_project(mar='handler = "nothing.py"'),
        env={**build_environ, "HATCH_MAR_DEBUG": "1"},
        expect=1,
    )
    assert "Traceback" in said
    assert "ProblemsError" in said


FORGETFUL = """
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

class Forgetful(BuildHookInterface):
    def initialize(self, version, build_data):
        self.metadata.core.scripts.clear()
"""


def test_a_wheel_that_came_out_without_its_program_is_removed(
    refused: Build, make_project: ProjectMaker
) -> None:
    project = make_project(
        pyproject=f"{HEAD}\n[tool.hatch.build.hooks.custom]\n",
        mar='handler = "handler.py:handle"\narchive.enabled = false',
        files={"hatch_build.py": FORGETFUL},
    )
    said = refused(project)
    assert "entry_points.txt: hatchling left out 'serve-demo'" in said
    assert 'add to [project.scripts]: serve-demo = "demo_mar.__main__:main"' in said
