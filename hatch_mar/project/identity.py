"""What the model is called, and what its archive and its wheel are to be like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from hatch_mar.archive.names import find_flaw
from hatch_mar.errors import Problem
from hatch_mar.project.document import PYPROJECT
from hatch_mar.project.names import fill, is_served_name, package_name, script_name
from hatch_mar.project.spec import ArchiveSettings, WheelSettings
from hatch_mar.project.table import parse_size

if TYPE_CHECKING:
    from hatch_mar.project.reading import Reading

SUFFIXES = {"mar": (".mar",), "tgz": (".tar.gz", ".tgz"), "dir": ("",)}
"""By these TorchServe tells the formats apart."""
DEFAULT_FILENAME = "{name}-{version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The names of a model."""

    name: str
    version: str
    description: str
    package: str


def resolve_identity(
    reading: Reading, *, project_name: str | None, project_version: str | None
) -> Identity:
    """Name the model. Where that fails, a stand-in lets the rest of the project be looked at."""
    project = reading.project
    own_name = project_name or project.get("name")
    if not isinstance(own_name, str) or not own_name:
        _complain(reading, "name", "is required")
        own_name = "model"
    name = reading.table.name or own_name
    if "name" not in reading.broken and not is_served_name(name):
        _complain(
            reading,
            "name",
            f"'{name}' cannot be served under that name, which must begin with a letter; "
            "set another one as `tool.mar.name`",
        )
    return Identity(
        name=name,
        version=_version(reading, project_version or project.get("version")),
        description=reading.table.description or project.get("description") or "",
        package=package_name(own_name),
    )


def _version(reading: Reading, project_version: object) -> str:
    if reading.table.version:
        return reading.table.version
    if isinstance(project_version, str) and project_version:
        try:
            return str(Version(project_version))  # as the build backend writes it
        except InvalidVersion:
            _complain(reading, "version", f"'{project_version}' is no version such as '1.0.0'")
    elif reading.is_dynamic("version"):
        _complain(
            reading, "version", "is dynamic, so only a build knows it; or set tool.mar.version"
        )
    elif "version" not in reading.broken:
        _complain(reading, "version", "is required, here or as `tool.mar.version`")
    return "0"


def _complain(reading: Reading, key: str, message: str) -> None:
    reading.problems.append(Problem(PYPROJECT, f"project.{key}", message))


def resolve_archive(reading: Reading, identity: Identity) -> ArchiveSettings:
    """Return `[tool.mar.archive]`, the file's name filled in."""
    table = reading.table.archive
    suffixes = SUFFIXES[table.format]
    template = table.filename or f"{DEFAULT_FILENAME}{suffixes[0]}"
    key = ("archive", "filename")
    try:
        filename = fill(template, name=identity.name, version=identity.version)
    except ValueError as error:
        reading.complain(key, str(error))
        filename = f"model{suffixes[0]}"
    if "/" in filename or find_flaw(filename) is not None:
        reading.complain(
            key, f"'{filename}' is not a file name; `archive.directory` moves the file"
        )
    elif not filename.endswith(suffixes):
        reading.complain(
            key,
            f"'{filename}' must end in {suffixes[0]}: servers go by that to read "
            f'`format = "{table.format}"`',
        )
    directory = Path(table.directory)
    if directory.is_absolute():
        reading.complain(
            ("archive", "directory"),
            f"'{directory}' is absolute, and exists on this machine only; write it relative to "
            "the wheel's directory, or set the variable HATCH_MAR_DIR",
        )
    return ArchiveSettings(
        enabled=table.enabled,
        directory=directory,
        filename=filename,
        format=table.format,
        compression=table.compression,
    )


def resolve_wheel(reading: Reading, identity: Identity) -> WheelSettings:
    """Return `[tool.mar.wheel]`, the script's name filled in."""
    table = reading.table.wheel
    script = None
    try:
        script = script_name(identity.name, table.script)
    except ValueError as error:
        reading.complain(("wheel", "script"), str(error))
    return WheelSettings(
        embed=table.embed,
        embed_limit=parse_size(table.embed_limit),
        script=script,
        tag=table.tag,
    )
