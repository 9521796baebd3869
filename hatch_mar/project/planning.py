"""From a `MarSpec` to a `Plan`: the files get their final names, and the manifest its words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.tarball import make_tarball
from hatch_mar.errors import Problem, ProblemsError
from hatch_mar.project.document import PYPROJECT
from hatch_mar.project.tarball import is_gzip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatch_mar.project.spec import Entry, MarSpec


def make_plan(spec: MarSpec) -> Plan:
    """Decide every member of the archive of `spec`. Packs the extra-files tarball, in memory.

    Raises:
        ProblemsError: a file that was there when the project was read is gone.
    """
    members = tuple(sorted(_members(spec), key=lambda member: member.name))
    gone = [
        member
        for member in members
        if isinstance(member.source, Path) and not member.source.is_file()
    ]
    if gone:
        raise ProblemsError(
            [Problem(str(member.source), "", "is gone; build again") for member in gone]
        )
    return Plan(
        name=spec.name,
        version=spec.version,
        manifest=_manifest(spec),
        members=members,
        runtime=spec.runtime,
        references=spec.references,
        examples=spec.examples,
        trusted_pickle=tuple(file.target for file in spec.weights if file.trusted_pickle),
        format=spec.archive.format,
        compression=spec.archive.compression,
        filename=spec.archive.filename,
    )


def _members(spec: MarSpec) -> Iterator[Member]:
    for entry in spec.entries:
        yield to_member(entry.name, entry.source)
    for file in spec.weights:
        if file.path is not None:
            yield to_member(file.target, file.path)
    if spec.tarball is not None:
        yield Member(spec.tarball, _pack(spec.tarball, spec.tarball_entries))


def to_member(name: str, source: Path | bytes) -> Member:
    """Return a member that is executable if its file is, for its owner."""
    executable = isinstance(source, Path) and source.is_file() and source.stat().st_mode & 0o100
    return Member(name, source, bool(executable))


def _pack(name: str, entries: tuple[Entry, ...]) -> bytes:
    files = {entry.name: entry.source for entry in entries}
    try:
        return make_tarball(files, gzip=is_gzip(name))
    except OSError as error:
        raise ProblemsError(
            [Problem(PYPROJECT, "tool.mar.extra-files", f"cannot be packed: {error}")]
        ) from error


def _manifest(spec: MarSpec) -> Manifest:
    named = (each.target for each in spec.weights if each.primary and not each.at_path)
    return Manifest(
        model_name=spec.name,
        model_version=spec.version,
        handler=spec.handler.manifest,
        serialized_file=next(named, None),
        model_file=spec.model_file,
        requirements_file=spec.requirements_file,
        config_file=spec.config_file,
        created_on=spec.created_on,
    )
