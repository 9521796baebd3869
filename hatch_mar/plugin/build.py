"""What a model adds to each kind of distribution."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.seal import SEAL_NAME, Seal
from hatch_mar.archive.write import make_seal, write_archive
from hatch_mar.errors import Problem, ProblemsError
from hatch_mar.plugin.beside import archive_directory, is_wanted, notice
from hatch_mar.plugin.checks import moving_problems, package_problems, runner_problems
from hatch_mar.plugin.entry_points import (
    Entry,
    entry_problems,
    fill_in,
    read_back,
    wanted_entries,
)
from hatch_mar.plugin.payload import Stage, editable_members, model_members, package_members, stage
from hatch_mar.plugin.stored import add_stored
from hatch_mar.project.planning import make_plan
from hatch_mar.project.read import read_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
    from hatchling.metadata.core import ProjectMetadata

    from hatch_mar.project.spec import MarSpec


@dataclass(frozen=True, slots=True)
class Project:
    """A project that has been read and planned."""

    spec: MarSpec
    plan: Plan

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entry points of its wheel."""
        spec = self.spec
        return wanted_entries(name=spec.name, package=spec.package, script=spec.script)


def read_project(root: str, hook: Mapping[str, Any], metadata: ProjectMetadata[Any]) -> Project:
    """Read the project as hatchling understands it: dynamic fields are resolved.

    Raises:
        ProblemsError: everything that is wrong with it.
    """
    spec = read_spec(
        Path(root), hook=hook, version=metadata.version, dependencies=metadata.core.dependencies
    )
    return Project(spec, make_plan(spec))


def build_archive(
    project: Project, *, build_directory: Path, environ: Mapping[str, str]
) -> tuple[Path, Seal]:
    """Write the archive, and return where it is and its seal."""
    directory = archive_directory(
        project.spec, root=project.spec.root, build_directory=build_directory, environ=environ
    )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / project.plan.filename
    return path, write_archive(project.plan, path)


def add_to_sdist(hook: BuildHookInterface[Any], build_data: dict[str, Any]) -> None:
    """Add every file that the archive is made of, git-ignored or not."""
    project = _check(hook, build_data)
    root = project.spec.root
    places = {str(path): path.relative_to(root).as_posix() for path in project.spec.files}
    _raise(list(moving_problems(hook.build_config, places.values())))
    build_data["force_include"].update(places)


def begin_wheel(
    hook: BuildHookInterface[Any], build_data: dict[str, Any], *, editable: bool
) -> WheelBuild:
    """Write the archive and stage the generated package, once everything has been checked."""
    project = _check(hook, build_data)
    spec, plan = project.spec, project.plan
    if editable:
        members = editable_members(spec, plan)
    else:
        sealed = [*plan.sealed_members(), Member(SEAL_NAME, _write_beside(hook, project).to_json())]
        members = model_members(spec.package, sealed)
    for note in spec.notes:
        hook.app.display_info(f"hatch-mar: {note}")
    staged = stage([*package_members(spec), *members])
    build_data["force_include"].update(staged.force_include)
    if build_data["force_include_editable"]:  # another hook's: hatchling then ignores force_include
        build_data["force_include_editable"].update(staged.force_include)
    _set_tag(hook, build_data, spec.wheel.tag)
    fill_in(hook.metadata, project.entries)
    return WheelBuild(project.entries, staged)


@dataclass(frozen=True, slots=True)
class WheelBuild:
    """A wheel between `initialize` and `finalize`."""

    entries: tuple[Entry, ...]
    staged: Stage

    def finish(self, wheel: Path) -> None:
        """Add the big members to `wheel` and check its entry points; a bad wheel is removed."""
        try:
            read_back(wheel, self.entries)
            if self.staged.stored:
                add_stored(wheel, self.staged.stored)
        except BaseException:
            wheel.unlink(missing_ok=True)
            raise
        finally:
            self.staged.close()


def _check(hook: BuildHookInterface[Any], build_data: dict[str, Any]) -> Project:
    """Return the project if everything is right with it, as a model and as a Python package.

    Raises:
        ProblemsError: all that is wrong.
    """
    problems = list(runner_problems(hook.metadata.core.dependencies))
    try:
        project = read_project(hook.root, hook.config, hook.metadata)
    except ProblemsError as error:
        raise ProblemsError([*error.problems, *problems]) from None
    problems += entry_problems(hook.metadata, project.entries)
    if hook.target_name == "wheel":
        problems += package_problems(hook.build_config, build_data, project.spec.package)
    _raise(problems)
    return project


def _raise(problems: list[Problem]) -> None:
    if problems:
        raise ProblemsError(problems)


def _write_beside(hook: BuildHookInterface[Any], project: Project) -> Seal:
    """Write the archive if this front end keeps it, and return the seal in any case."""
    if not is_wanted(project.spec, os.environ):
        return make_seal(project.plan)
    build_directory = Path(hook.directory)
    archive, seal = build_archive(project, build_directory=build_directory, environ=os.environ)
    hook.app.display_info(notice(archive, root=project.spec.root, build_directory=build_directory))
    return seal


def _set_tag(hook: BuildHookInterface[Any], build_data: dict[str, Any], tag: str) -> None:
    """Tag the wheel as the author says; else for any Python 3, unless another hook knows better."""
    if tag != "auto":
        build_data["tag"] = tag
        build_data["pure_python"] = tag.endswith("-any")
    elif not hook.metadata.core.requires_python and not build_data["infer_tag"]:
        build_data.setdefault("tag", "py3-none-any")  # hatchling would add py2
