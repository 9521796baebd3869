"""What the author wrote, for the commands: a model project, read as a build of it would."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.project.pinning import Wanted
    from hatch_mar.project.spec import MarSpec

NO_HOOK = (
    "pyproject.toml: there is no [tool.hatch.build.hooks.mar], so a build will leave the model out"
)


def read_project(root: Path, *, unanswered: bool = False) -> MarSpec:
    """Read the model project in `root` as a build would, hook table and dynamic fields included.

    With `unanswered`, the outputs of its examples may be missing: somebody will write them.

    Raises:
        ProblemsError: everything that is wrong with it.
    """
    from dataclasses import replace  # noqa: PLC0415

    from hatch_mar.project.document import dig, find_hook, read_pyproject  # noqa: PLC0415
    from hatch_mar.project.read import read_spec  # noqa: PLC0415

    pyproject = read_pyproject(root, [])
    hook, _ = find_hook(root, pyproject, [])
    dynamic = dig(pyproject, "project", "dynamic")
    fields = {
        field: _ask_hatchling(root, field)
        for field in ("version", "dependencies")
        if isinstance(dynamic, list)
        and field in dynamic
        and dig(pyproject, "tool", "mar", field) is None
    }
    spec = read_spec(root, hook=hook or {}, unanswered=unanswered, **fields)
    return spec if hook is not None else replace(spec, notes=(*spec.notes, NO_HOOK))


def read_references(root: Path) -> tuple[Wanted, ...]:
    """Return the weights that the project in `root` refers to, locked or not.

    Raises:
        ProblemsError: everything that is wrong with its settings, its weights or mar.lock.
    """
    from hatch_mar.project.document import find_hook, read_pyproject  # noqa: PLC0415
    from hatch_mar.project.read import read_wanted  # noqa: PLC0415

    hook, _ = find_hook(root, read_pyproject(root, []), [])
    return read_wanted(root, hook=hook or {})


def _ask_hatchling(root: Path, field: str) -> Any:  # noqa: ANN401 - a string or a list
    """Return a field of `[project]` that only the build backend can tell; None if it cannot."""
    command = [sys.executable, "-m", "hatchling", "metadata", field]
    result = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)  # noqa: S603 - our own arguments
    if result.returncode:
        return None
    return result.stdout.strip() if field == "version" else json.loads(result.stdout)


def find_project(target: str) -> Path:
    """Return the directory of the project `target`, resolved.

    Raises:
        TargetError: there is no project of that name.
    """
    from hatch_mar.cli.subject import find_subject  # noqa: PLC0415
    from hatch_mar.errors import TargetError  # noqa: PLC0415

    subject = find_subject(target)
    if subject.kind == "project" and subject.path is not None:
        return subject.path.resolve()
    if subject.path is not None and subject.path.is_dir():
        raise TargetError(f"{target}: has no pyproject.toml, so it is not a project")
    raise TargetError(f"{target}: is a model that is built already; name a project's directory")
