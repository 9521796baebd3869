"""What the hook costs a build without weights: CPU time of `hatch build`.

hatch starts one more process for any hook that is not its own, to ask it for dependencies. So there
is a third project, whose hook does nothing.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from benchmarks.packaging import (
    HOME,
    PLAIN,
    PROJECT,
    Run,
    Task,
    make_project,
    model_project,
    packing_environment,
    run_task,
    versions_of,
)
from tests.support.environment import say

if TYPE_CHECKING:
    from pathlib import Path

NO_HOOK, EMPTY_HOOK, OUR_HOOK = "no hook", "a hook that does nothing", "hatch-mar"
CUSTOM = "[tool.hatch.build.hooks.custom]\n"
EMPTY = """\
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
class Hook(BuildHookInterface):
    pass
"""


def run_hook(*, rounds: int) -> dict[str, Any]:
    """Build each project once, which makes its environment, then `rounds` times in turn."""
    python = packing_environment()
    shutil.rmtree(HOME / "hatch", ignore_errors=True)
    plain = PROJECT.format(requires="") + PLAIN
    tasks = [
        _task(python, NO_HOOK, plain),
        _task(python, EMPTY_HOOK, plain + CUSTOM),
        _task(python, OUR_HOOK, model_project("wheel", weights="")),
    ]
    for task in tasks:
        say(f"{task.what}, not measured")
        run_task(task, -1, None)
    runs: list[Run] = []
    for number in range(rounds):
        shift = number % len(tasks)
        runs += [run_task(task, number, None) for task in (*tasks[shift:], *tasks[:shift])]
    return {"rounds": rounds, "versions": versions_of(python), "runs": runs}


def _task(python: Path, what: str, pyproject: str) -> Task:
    project = make_project(f"hatch build, {what}", pyproject, None)
    (project / "hatch_build.py").write_text(EMPTY)
    environ = f"HATCH_DATA_DIR={HOME / 'hatch'}"
    return Task(
        what=what,
        command=lambda out: [
            *("env", "-C", str(project), environ, str(python.with_name("hatch"))),
            *("build", "-t", "wheel", str(out)),
        ],
        output="*.whl",
    )
