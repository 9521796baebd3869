"""`hatch-mar export`: the archive, from whatever holds the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hatch_mar.cli.fetching import fetch_told
from hatch_mar.cli.output import emit, json_option, progress, say, told_as_json
from hatch_mar.cli.subject import TARGET, find_subject

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hatch_mar.archive.plan import Format
    from hatch_mar.archive.read import Archive
    from hatch_mar.cli.subject import Subject
    from hatch_mar.weights.reference import Reference


@click.command()
@click.argument("target", type=TARGET)
@click.option(
    "-d",
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where to write it; the current directory unless given.",
)
@click.option(
    "--embed",
    is_flag=True,
    help="Put the weights that it only names into it; they are fetched if need be.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["mar", "tgz", "dir"]),
    help="Another format than the one it was built in.",
)
@json_option
def command(
    target: str, directory: Path, *, embed: bool, form: Format | None, as_json: bool
) -> None:
    """Write the archive of TARGET.

    TARGET is a wheel, an archive of any format, the name of an installed model, or a project, of
    which no build is needed. What comes from a wheel or an installation is the archive that it was
    built with, byte for byte, unless --embed or --format asks for another one.
    """
    with told_as_json(target, as_json=as_json):
        subject = find_subject(target)
        path = (
            _export_project(subject, directory, form, embed=embed)
            if subject.kind == "project"
            else _export_archive(subject, directory, form, embed=embed)
        )
    if as_json:
        emit(_describe(path))
    else:
        say(str(path))


def _export_archive(subject: Subject, directory: Path, form: Format | None, *, embed: bool) -> Path:
    from hatch_mar.archive.export import export_archive  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.errors import TargetError  # noqa: PLC0415

    with subject.open() as archive:
        if archive.kind == "editable":
            raise TargetError(
                f"{subject.what}: is installed in editable mode; export its project instead"
            )
        embedded = _fetch_all(archive.seal.references) if embed and archive.seal else {}
        with progress("writing", _count_bytes(archive, embedded.values())) as advance:
            return export_archive(archive, directory, form=form, embedded=embedded, advance=advance)


def _export_project(subject: Subject, directory: Path, form: Format | None, *, embed: bool) -> Path:
    from dataclasses import replace  # noqa: PLC0415 - see hatch_mar.cli

    from hatch_mar.archive.export import embed as embed_files  # noqa: PLC0415
    from hatch_mar.archive.export import rename  # noqa: PLC0415
    from hatch_mar.archive.write import write_archive  # noqa: PLC0415
    from hatch_mar.cli.authored import read_project  # noqa: PLC0415
    from hatch_mar.project.planning import make_plan  # noqa: PLC0415

    assert subject.path is not None
    plan = make_plan(read_project(subject.path.resolve()))
    if form is not None and form != plan.format:
        plan = replace(plan, format=form, filename=rename(plan.filename, form))
    if embed:
        plan = embed_files(plan, _fetch_all(plan.references))
    path = directory / plan.filename
    with progress("writing", sum(member.size() for member in plan.members)) as advance:
        write_archive(plan, path, advance=advance)
    return path


def _fetch_all(references: Iterable[Reference]) -> dict[Reference, Path]:
    """Fetch what is not in the cache, one after the other.

    Raises:
        OfflineError: it is forbidden to fetch some of them; all of these are named.
        WeightsError: as `fetch`.
    """
    from hatch_mar.errors import OfflineError  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.weights.cache import Cache  # noqa: PLC0415

    cache = Cache()
    found: dict[Reference, Path] = {}
    forbidden: list[OfflineError] = []
    for reference in references:
        try:
            found[reference] = fetch_told(reference, cache)
        except OfflineError as error:
            forbidden.append(error)
    if forbidden:
        raise OfflineError("\n".join(map(str, forbidden)))
    return found


def _count_bytes(archive: Archive, files: Iterable[Path]) -> int:
    return sum(map(archive.size, archive.names())) + sum(path.stat().st_size for path in files)


def _describe(path: Path) -> dict[str, object]:
    """Return what was written, as JSON holds it."""
    from hatch_mar.archive.read import open_archive  # noqa: PLC0415 - see hatch_mar.cli

    with open_archive(path) as archive:
        assert archive.seal is not None
        packing = archive.seal.packing
        return {
            "path": str(path),
            "name": archive.seal.name,
            "version": archive.seal.version,
            "format": packing.format,
            "members": len(archive.names()),
            "size": path.stat().st_size
            if path.is_file()
            else sum(map(archive.size, archive.names())),
            "references": [reference.target for reference in archive.seal.references],
        }
