"""`hatch-mar adopt`: what was made with torch-model-archiver becomes a project."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hatch_mar.cli.output import emit, json_option, say
from hatch_mar.errors import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hatch_mar.archive.read import Archive
    from hatch_mar.project.adoption.of_archive import Adopted
    from hatch_mar.project.draft import Draft

PROGRAMS = "torch-model-archiver --model-name ... or ./build.sh --model_name ..."


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("what", nargs=-1, required=True, type=click.UNPROCESSED, metavar="WHAT...")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    help="Unpack the archive into this directory, with a pyproject.toml. Overwrites nothing.",
)
@json_option
def command(what: tuple[str, ...], *, into: Path | None, as_json: bool) -> None:
    """Print the pyproject.toml for what torch-model-archiver made, or was to make.

    WHAT is an archive (a .mar, a .tar.gz, a directory, a wheel, an installed model), or a command
    line of torch-model-archiver or of build.sh: after `--`, or quoted as one word. Paths of a
    command line are taken from the current directory, which is where the project will be.
    """
    try:
        call = _find_call(what)
        if call is not None:
            if into is not None:
                raise click.UsageError("--into unpacks an archive; a command line has none")
            _adopt_call(call, as_json=as_json)
        else:
            _adopt_archive(what, into, as_json=as_json)
    except ProblemsError as error:
        if as_json:
            emit({"problems": [_plain(problem) for problem in error.problems]})
            sys.exit(error.exit_code)
        raise


def _plain(problem: object) -> dict[str, str]:
    return {key: getattr(problem, key) for key in ("file", "key", "message")}


def _find_call(what: tuple[str, ...]) -> list[str] | None:
    """Return the words of a command line; None if `what` is an archive."""
    from hatch_mar.project.adoption.calls import is_call, split_command  # noqa: PLC0415 - see cli

    words = list(what)
    if len(words) == 1 and not Path(words[0]).exists() and any(map(str.isspace, words[0])):
        words = split_command(words[0])
    if words and (is_call(words) or words[0].startswith("-")):
        return words
    return None


def _adopt_call(words: list[str], *, as_json: bool) -> None:
    from hatch_mar.project.adoption.calls import parse_call  # noqa: PLC0415
    from hatch_mar.project.adoption.of_call import draft_of_call  # noqa: PLC0415 - see hatch_mar.cli

    draft = draft_of_call(parse_call(words), Path.cwd())
    if as_json:
        emit(_document(draft))
    else:
        say(draft.to_toml().rstrip("\n"))


def _adopt_archive(what: tuple[str, ...], into: Path | None, *, as_json: bool) -> None:
    from hatch_mar.cli.subject import find_subject  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.project.adoption.of_archive import draft_of_archive, unpack_into  # noqa: PLC0415

    if len(what) > 1:
        raise click.UsageError(f"one archive, or a command line such as {PROGRAMS}")
    subject = find_subject(what[0])
    if subject.kind == "project":
        raise click.UsageError(f"{what[0]} has a pyproject.toml: it is a project already")
    with subject.open() as archive:
        adopted = draft_of_archive(archive)
        if into is not None:
            unpack_into(into, archive, adopted)
        differences = [] if into is None else list(_prove(into, archive))
    if as_json:
        document = _document(adopted.draft)
        document["files"] = adopted.files
        document["differences"] = differences
        emit(document)
    elif into is None:
        say(adopted.draft.to_toml().rstrip("\n"))
    else:
        _report(into, adopted, differences)


def _document(draft: Draft) -> dict[str, object]:
    return {
        "name": draft.project,
        "version": draft.version,
        "notes": list(draft.notes),
        "pyproject": draft.to_toml(),
        "problems": [],
    }


def _prove(root: Path, archive: Archive) -> Iterable[str]:
    """Yield where the archive that a build of `root` would make is not the one that was adopted."""
    from hatch_mar.archive.planned import open_planned  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.cli.authored import read_project  # noqa: PLC0415
    from hatch_mar.project.adoption.of_archive import find_differences  # noqa: PLC0415
    from hatch_mar.project.planning import make_plan  # noqa: PLC0415

    try:
        plan = make_plan(read_project(root.resolve()))
    except ProblemsError as error:
        yield from (f"to put right before a build: {problem}" for problem in error.problems)
        return
    with open_planned(plan, root) as planned:
        yield from find_differences(archive, planned)


def _report(into: Path, adopted: Adopted, differences: list[str]) -> None:
    say(f"{into}: {len(adopted.files)} files and pyproject.toml")
    for note in adopted.draft.notes:
        say(f"  {note}")
    if differences:
        say("")
        say("Not all of it comes back as it was:")
        for difference in differences:
            say(f"  {difference}")
    else:
        say("  a build of it packs the same members again, byte for byte")
    say("")
    say(f"Next: cd {shlex.quote(str(into))} && hatch build")
