"""The two entry points by which an installed model is found.

`serve-<name>` in `[project.scripts]`, and `<name>` in the group `hatch_mar.models`. The author
writes them down, or lists the fields in `project.dynamic` and leaves them to us (PEP 621 wants this
said).
"""

from __future__ import annotations

from configparser import ConfigParser
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from hatch_mar.archive.packaged import ENTRY_POINT_GROUP
from hatch_mar.errors import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from hatchling.metadata.core import ProjectMetadata


PYPROJECT = "pyproject.toml"
SCRIPTS = "console_scripts"
"""The group of `[project.scripts]` in a wheel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry point that the wheel must have."""

    field: str
    """Field of `[project]`: `scripts` or `entry-points`."""
    group: str
    """Its group in the wheel's entry_points.txt."""
    name: str
    target: str

    @property
    def table(self) -> str:
        """The TOML table an author would write it in."""
        return (
            "project.scripts" if self.field == "scripts" else f'project.entry-points."{self.group}"'
        )

    @property
    def line(self) -> str:
        """The line an author would write."""
        name = f'"{self.name}"' if "." in self.name else self.name
        return f'{name} = "{self.target}"'


def wanted_entries(*, name: str, package: str, script: str | None) -> tuple[Entry, ...]:
    """Return the entry points of the wheel of the model `name` in the generated `package`."""
    model = Entry(field="entry-points", group=ENTRY_POINT_GROUP, name=name, target=package)
    if script is None:
        return (model,)
    main = f"{package}.__main__:main"
    return (Entry(field="scripts", group=SCRIPTS, name=script, target=main), model)


def add_to_table(project: dict[str, Any], entries: Iterable[Entry]) -> None:
    """Add `entries` to a `[project]` table, where `dynamic` leaves their field to us."""
    for entry in entries:
        if entry.field in project.get("dynamic", ()):
            table = project.setdefault(entry.field, {})
            group = table if entry.field == "scripts" else table.setdefault(entry.group, {})
            group[entry.name] = entry.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What `[project]` says of entry points."""

    groups: Mapping[str, Mapping[str, str]]
    """Entry points by group, scripts among them."""
    dynamic: Sequence[str]
    written: Collection[str]
    """The fields that the file has."""

    @classmethod
    def by_hatchling(cls, metadata: ProjectMetadata[Any]) -> Declared:
        """Return what is in force in a build."""
        groups = {**metadata.core.entry_points, SCRIPTS: metadata.core.scripts}
        return cls(groups=groups, dynamic=metadata.dynamic, written=metadata.core_raw_metadata)

    @classmethod
    def in_file(cls, project: Mapping[str, Any]) -> Declared:
        """Return what the table `project` says; what is no table is hatchling's to complain of."""
        own = project.get("entry-points")
        groups = {**(own if isinstance(own, dict) else {}), SCRIPTS: project.get("scripts")}
        dynamic = project.get("dynamic")
        return cls(
            groups={name: each for name, each in groups.items() if isinstance(each, dict)},
            dynamic=dynamic if isinstance(dynamic, list) else [],
            written=project,
        )


def entry_problems(declared: Declared, entries: Iterable[Entry]) -> Iterator[Problem]:
    """Yield what keeps `entries` out of the wheel, with the line to paste."""
    for entry in entries:
        found = declared.groups.get(entry.group, {}).get(entry.name)
        if found is None and entry.field not in declared.dynamic:
            yield Problem(PYPROJECT, f"project.{entry.field}", _remedy(declared, entry))
        elif found not in (None, entry.target):
            message = f"'{found}' is not what the wheel has; write {entry.line}"
            yield Problem(PYPROJECT, f"{entry.table}.{entry.name}", message)


def fill_in(metadata: ProjectMetadata[Any], entries: Iterable[Entry]) -> None:
    """Add to the metadata in force what `dynamic` promises and nobody has delivered.

    hatchling caches one mapping per field and writes entry_points.txt from it; `read_back` notices
    should that ever change.
    """
    for entry in entries:
        if entry.field == "scripts":
            metadata.core.scripts.setdefault(entry.name, entry.target)
        else:
            group = metadata.core.entry_points.setdefault(entry.group, {})
            group.setdefault(entry.name, entry.target)


def read_back(wheel: Path, entries: Iterable[Entry]) -> None:
    """Check that entry_points.txt of `wheel` holds `entries`.

    Raises:
        ProblemsError: it does not.
    """
    groups = _read_entry_points(wheel)
    missing = [entry for entry in entries if groups.get(entry.group, {}).get(entry.name) is None]
    if missing:
        raise ProblemsError(
            [
                Problem(
                    wheel.name,
                    "entry_points.txt",
                    f"hatchling left out {entry.name!r}; add to [{entry.table}]: {entry.line}",
                )
                for entry in missing
            ]
        )


def _remedy(declared: Declared, entry: Entry) -> str:
    head = f"no entry point {entry.name!r}"
    literal = f"add to [{entry.table}]: {entry.line}"
    if entry.field in declared.written:  # hatchling refuses a field that is both
        return f"{head}; {literal}"
    fields = [*declared.dynamic, "scripts", "entry-points"]
    if "scripts" in declared.written:
        fields.remove("scripts")
    if "entry-points" in declared.written:
        fields.remove("entry-points")
    dynamic = ", ".join(f'"{field}"' for field in dict.fromkeys(fields))
    return f"{head}; add to [project]: dynamic = [{dynamic}]"


def _read_entry_points(wheel: Path) -> dict[str, dict[str, str]]:
    parser = ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    with ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".dist-info/entry_points.txt") and name.count("/") == 1:
                parser.read_string(archive.read(name).decode())
    return {group: dict(parser[group]) for group in parser.sections()}
