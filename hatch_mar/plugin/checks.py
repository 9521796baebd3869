"""What must be true of a project before its wheel may carry a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hatch_mar.errors import Problem
from hatch_mar.plugin.entry_points import PYPROJECT, Declared, entry_problems, wanted_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hatchling.builders.config import BuilderConfig

    from hatch_mar.project.spec import MarSpec

RUNNER = "hatch-mar[serve]"


def runner_problems(dependencies: Iterable[str]) -> Iterator[Problem]:
    """Yield a problem unless `dependencies` (PEP 508) bring the runner.

    The runner is not copied into the wheel: `serve-<name>` comes with this one dependency.
    """
    from packaging.requirements import Requirement  # noqa: PLC0415 - a dependency of hatchling
    from packaging.utils import canonicalize_name  # noqa: PLC0415

    found = [Requirement(dependency) for dependency in dependencies]
    ours = [each for each in found if canonicalize_name(each.name) == "hatch-mar"]
    if any("serve" in each.extras for each in ours):
        return
    remedy = f'write "{RUNNER}" instead of "{ours[0]}"' if ours else f'add "{RUNNER}"'
    yield Problem(PYPROJECT, "project.dependencies", f"the wheel brings no runner; {remedy}")


def file_problems(project: Mapping[str, Any], spec: MarSpec | None) -> Iterator[Problem]:
    """Yield what a build of the wheel would not have of the table `[project]`, unbuilt.

    Without a `spec`, as the project has other problems, nobody knows which entry points it needs.
    What is left to the build or is wrong for any project, a build will tell.
    """
    dependencies = project.get("dependencies", [])
    if "dependencies" not in Declared.in_file(project).dynamic and isinstance(dependencies, list):
        yield from runner_problems(filter(_is_requirement, dependencies))
    if spec is not None:
        entries = wanted_entries(name=spec.name, package=spec.package, script=spec.script)
        yield from entry_problems(Declared.in_file(project), entries)


def _is_requirement(line: object) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415 - see above

    try:
        return isinstance(line, str) and bool(Requirement(line))
    except InvalidRequirement:
        return False


def package_problems(
    config: BuilderConfig, build_data: dict[str, Any], package: str
) -> Iterator[Problem]:
    """Yield what keeps the wheel from having a generated package of this name, and no other."""
    # With nothing forced in, hatchling refuses a project that has no Python package of its own.
    forced = {**build_data["force_include"], __file__: ".hatch-mar"}
    with config.set_build_data({**build_data, "force_include": forced}):
        yield from moving_problems(config, [f"{package}/__init__.py"])
        yield from _collision_problems(config, package)


def _collision_problems(config: BuilderConfig, package: str) -> Iterator[Problem]:
    shipped = [file.distribution_path for file in config.builder.recurse_selected_project_files()]
    shipped += config.force_include.values()
    taken = [path for path in shipped if path.split("/")[0] in (package, f"{package}.py")]
    if taken:
        yield Problem(
            PYPROJECT,
            "project.name",
            f"the wheel already has '{min(taken)}', where the model's generated package "
            f"'{package}' goes; rename your package",
        )


def moving_problems(config: BuilderConfig, paths: Iterable[str]) -> Iterator[Problem]:
    """Yield a problem for the first of `paths` that the author's `sources` would move elsewhere."""
    for path in paths:
        moved = config.get_distribution_path(path)
        if moved != path:
            yield Problem(
                PYPROJECT,
                f"tool.hatch.build.targets.{config.plugin_name}.sources",
                f"moves '{path}' to '{moved}', where nothing would find it; "
                "name the directories to move instead of all of them",
            )
            return
