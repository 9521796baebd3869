"""`[tool.hatch.metadata.hooks.mar]`: the entry points, where `dynamic` leaves them to us.

With this hook they are part of the metadata that every tool sees, `hatch project metadata` too. The
build hook fills them in where this one is not asked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

from hatch_mar.errors import Problem, ProblemsError
from hatch_mar.plugin.reporting import exit_with, one_message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.plugin.entry_points import Entry

NO_BUILD_HOOK = Problem(
    "pyproject.toml",
    "tool.hatch.build.hooks.mar",
    "no such table, so nothing would build the package that the entry points name; "
    "add an empty one: [tool.hatch.build.hooks.mar]",
)


class MarMetadataHook(MetadataHookInterface):
    """Adds `serve-<name>` and the entry of the group `hatch_mar.models`."""

    PLUGIN_NAME = "mar"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the entry points to the `[project]` table in force."""
        from hatch_mar.plugin.entry_points import add_to_table  # noqa: PLC0415 - as in hooks.py

        with one_message(exit_with):
            tool = _read_tool_table(self.root)
            tables = [_variables(os.environ), _build_hook_table(tool), tool.get("mar", {})]
            add_to_table(metadata, _entries(tables, metadata["name"]))


def _read_tool_table(root: str) -> dict[str, Any]:
    """Return `[tool]` as hatchling sees it: hatch.toml replaces tables of `[tool.hatch]`."""
    import tomllib  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    tool = tomllib.loads(Path(root, "pyproject.toml").read_text(encoding="utf-8")).get("tool", {})
    own = Path(root, "hatch.toml")
    hatch = tomllib.loads(own.read_text(encoding="utf-8")) if own.is_file() else {}
    return {**tool, "hatch": {**_table(tool, "hatch"), **hatch}}


def _table(table: object, *keys: str) -> Mapping[str, Any]:
    """Return the table at `keys`; none if there is something else on the way, or nothing."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else {}


def _variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what the environment says about names, as a table."""
    table: dict[str, Any] = {}
    if "HATCH_MAR_NAME" in environ:
        table["name"] = environ["HATCH_MAR_NAME"]
    if "HATCH_MAR_WHEEL_SCRIPT" in environ:
        script = environ["HATCH_MAR_WHEEL_SCRIPT"]
        table["wheel"] = {"script": {"true": True, "false": False}.get(script, script)}
    return table


def _build_hook_table(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    build = _table(tool, "hatch", "build")
    # hatchling lets the narrower table replace the wider one
    for hooks in (_table(build, "targets", "wheel", "hooks"), _table(build, "hooks")):
        if "mar" in hooks:
            return _table(hooks, "mar")
    raise ProblemsError([NO_BUILD_HOOK])


def _entries(tables: list[Mapping[str, Any]], project_name: str) -> tuple[Entry, ...]:
    """Return the entry points; none while `[tool.mar]` is wrong: the build hook says how."""
    from hatch_mar.plugin.entry_points import wanted_entries  # noqa: PLC0415
    from hatch_mar.project.names import SCRIPT_TEMPLATE, package_name, script_name  # noqa: PLC0415

    try:
        name = _first(tables, "name", default=project_name)
        script = _first([table.get("wheel", {}) for table in tables], "script", default=None)
        return wanted_entries(
            name=name,
            package=package_name(project_name),
            script=script_name(name, SCRIPT_TEMPLATE if script is None else script),
        )
    except (ValueError, TypeError, AttributeError):
        return ()


def _first(tables: list[Mapping[str, Any]], key: str, *, default: Any) -> Any:  # noqa: ANN401
    return next((table[key] for table in tables if key in table), default)
