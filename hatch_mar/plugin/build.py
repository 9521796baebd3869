"""What a model adds to each kind of distribution."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.seal import SEAL_NAME
from hatch_mar.archive.write import make_seal
from hatch_mar.errors import Problem, ProblemsError
from hatch_mar.plugin.beside import StagedArchive, archive_directory, is_wanted, notice
from hatch_mar.plugin.checks import moving_problems, package_problems, runner_problems
from hatch_mar.plugin.entry_points import (
    Declared,
    Entry,
    entry_problems,
    fill_in,
    read_back,
    wanted_entries,
)
from hatch_mar.plugin.payload import (
    Stage,
    editable_members,
    model_members,
    package_members,
    stage,
    stage_sources,
)
from hatch_mar.plugin.sbom import Distribution, make_sbom, sbom_name
from hatch_mar.plugin.stored import add_stored
from hatch_mar.plugin.tag import ANY, Tag, choose_tag
from hatch_mar.project.planning import make_plan
from hatch_mar.project.read import read_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
) -> StagedArchive:
    """Write the archive, for somebody to put in its place."""
    directory = archive_directory(
        project.spec, root=project.spec.root, build_directory=build_directory, environ=environ
    )
    return StagedArchive(project.plan, directory / project.plan.filename)


def add_to_sdist(hook: BuildHookInterface[Any], build_data: dict[str, Any]) -> Stage:
    """Add every file that the archive is made of, git-ignored or not."""
    project, problems = _read(hook)
    root = project.spec.root
    files = {path.relative_to(root).as_posix(): path for path in project.spec.files}
    _raise([*problems, *moving_problems(hook.build_config, files)])
    staged = stage_sources(files)
    build_data["force_include"].update(staged.force_include)
    return staged


def begin_wheel(
    hook: BuildHookInterface[Any], build_data: dict[str, Any], *, editable: bool
) -> WheelBuild:
    """Write the archive and stage the generated package, once everything has been checked."""
    project, problems = _read(hook)
    spec = project.spec
    problems += package_problems(hook.build_config, build_data, spec.package)
    tag = None if editable else _choose_tag(project, problems)
    _raise(problems)
    for note in spec.notes:
        hook.app.display_info(f"hatch-mar: {note}")
    if tag is not None:
        _set_tag(hook, build_data, tag)
    payload = _map_of(project) if editable else _payload(hook, project)
    staged = stage([*package_members(spec), *payload.members])
    build_data["force_include"].update(staged.force_include)
    if build_data["force_include_editable"]:  # another hook's: hatchling then ignores force_include
        build_data["force_include_editable"].update(staged.force_include)
    late = payload.metadata
    if "sbom_files" in build_data:  # since hatchling 1.28
        build_data["sbom_files"] += staged.lay_out(late)
        late = ()
    fill_in(hook.metadata, project.entries)
    return WheelBuild(
        entries=project.entries,
        staged=staged,
        metadata=late,
        archive=payload.archive,
        announce=partial(_announce, hook, project),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelBuild:
    """A wheel between `initialize` and `finalize`."""

    entries: tuple[Entry, ...]
    staged: Stage
    metadata: tuple[Member, ...]
    """What hatchling could not be told to put into `.dist-info`."""
    archive: StagedArchive | None
    announce: Callable[[Path], None]

    def finish(self, wheel: Path) -> None:
        """Add what is missing to `wheel`, read it back, and let the archive appear beside it.

        A wheel that is not what it should be is removed, and its archive never appears.
        """
        try:
            if self.staged.stored or self.metadata:
                add_stored(wheel, self.staged.stored, self.metadata)
            read_back(wheel, self.entries)
            self.put_archive()
        except BaseException:
            wheel.unlink(missing_ok=True)
            raise
        finally:
            self.close()

    def put_archive(self) -> None:
        """Let the archive appear, if there is one."""
        if self.archive is not None:
            self.archive.put()
            self.announce(self.archive.path)

    def close(self) -> None:
        """Remove what was laid out for this build."""
        self.staged.close()
        if self.archive is not None:
            self.archive.discard()


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What a wheel carries of a model."""

    members: tuple[Member, ...]
    """Named by their places in the wheel."""
    metadata: tuple[Member, ...] = ()
    """Named by their places in its `.dist-info`."""
    archive: StagedArchive | None = None


def _map_of(project: Project) -> Payload:
    return Payload(members=tuple(editable_members(project.spec, project.plan)))


def _payload(hook: BuildHookInterface[Any], project: Project) -> Payload:
    """Return the model's files and its bill of materials; write the archive if it is kept."""
    spec, plan = project.spec, project.plan
    archive = None
    if is_wanted(spec, os.environ):
        directory = Path(hook.directory)
        archive = build_archive(project, build_directory=directory, environ=os.environ)
    seal = make_seal(plan) if archive is None else archive.seal
    sealed = [*plan.sealed_members(), Member(SEAL_NAME, seal.to_json())]
    bill = make_sbom(spec, seal, _distribution(hook.metadata), os.environ)
    return Payload(
        members=tuple(model_members(spec.package, sealed)),
        metadata=(Member(f"sboms/{sbom_name(spec)}", bill),),
        archive=archive,
    )


def _distribution(metadata: ProjectMetadata[Any]) -> Distribution:
    return Distribution(
        name=metadata.core.name,
        version=metadata.version,
        dependencies=tuple(metadata.core.dependencies),
        license_expression=metadata.core.license_expression,
    )


def _announce(hook: BuildHookInterface[Any], project: Project, archive: Path) -> None:
    root, directory = project.spec.root, Path(hook.directory)
    hook.app.display_info(notice(archive, root=root, build_directory=directory))


def _read(hook: BuildHookInterface[Any]) -> tuple[Project, list[Problem]]:
    """Return the project, and what is wrong with it as a Python package.

    Raises:
        ProblemsError: something is wrong with it as a model; all that is wrong.
    """
    problems = list(runner_problems(hook.metadata.core.dependencies))
    try:
        project = read_project(hook.root, hook.config, hook.metadata)
    except ProblemsError as error:
        raise ProblemsError([*error.problems, *problems]) from None
    declared = Declared.by_hatchling(hook.metadata)
    return project, [*problems, *entry_problems(declared, project.entries)]


def _raise(problems: list[Problem]) -> None:
    if problems:
        raise ProblemsError(problems)


def _choose_tag(project: Project, problems: list[Problem]) -> Tag | None:
    """Return the tag of the wheel; None after adding to `problems`."""
    try:
        return choose_tag(project.spec, project.plan)
    except ProblemsError as error:
        problems += error.problems
        return None


def _set_tag(hook: BuildHookInterface[Any], build_data: dict[str, Any], tag: Tag) -> None:
    """Tag the wheel, unless the author has not and another hook knows better."""
    if not tag.by_author and (build_data.get("tag") or build_data["infer_tag"]):
        return
    if not tag.by_author and tag.text == ANY:
        if not hook.metadata.core.requires_python:
            build_data["tag"] = ANY  # hatchling would add py2
        return
    build_data["tag"] = tag.text
    build_data["pure_python"] = tag.text.endswith("-any")
    if not tag.by_author:
        hook.app.display_info(f"hatch-mar: tagged {tag.text}, for '{tag.because}' is machine code")
