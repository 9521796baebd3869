"""`hatch-mar check`: what is wrong with a model, and who could serve it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from hatch_mar.cli.options import DeviceChoice, read_device
from hatch_mar.cli.output import emit, json_option, say, told_as_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hatch_mar.archive.read import Archive
    from hatch_mar.cli.subject import Subject
    from hatch_mar.cli.trial import Trial
    from hatch_mar.cli.verdict import Verdict
    from hatch_mar.errors import Problem
    from hatch_mar.project.spec import MarSpec, Setting


@click.command()
@click.argument("target", default=".")
@click.option("--load", is_flag=True, help="Load the model too, in a worker process.")
@click.option("--golden", is_flag=True, help="Load it, and ask it its golden examples.")
@click.option(
    "--bless", is_flag=True, help="Load it, and record its answers as those of the examples."
)
@click.option(
    "--device",
    callback=read_device,
    default="cpu",
    show_default=True,
    help="Where to load it: cpu, gpu, auto, or the number of a GPU.",
)
@click.option(
    "--for",
    "servers",
    type=click.Choice(("hatch-mar", "torchserve")),
    multiple=True,
    help="Fail unless this server can serve it; may be given twice.",
)
@click.option("--explain", is_flag=True, help="Print each value and where it came from.")
@json_option
def command(target: str, device: DeviceChoice, servers: tuple[str, ...], **flags: bool) -> None:
    """Say what is wrong with TARGET, and whether hatch-mar and stock TorchServe can serve it.

    TARGET is a project, a .mar file, a directory, a wheel or an installed model; the current
    directory unless given. Nothing of it is imported, and nothing written, unless you ask for it:
    --load, --golden and --bless run its code. Exits with 2 if a project is wrong, 3 if an archive
    is, and 5 if the model does not load or answers otherwise than recorded.
    """
    from hatch_mar.cli.subject import find_subject  # noqa: PLC0415 - see hatch_mar.cli

    as_json = flags["as_json"]
    with told_as_json(target, as_json=as_json):
        subject = find_subject(target)
        if flags["explain"] or flags["bless"]:
            from hatch_mar.cli.authored import find_project  # noqa: PLC0415 - it must be a project

            find_project(target)
        if flags["explain"]:
            _explain(subject, as_json=as_json)
        elif flags["bless"]:
            from hatch_mar.cli.bless import bless  # noqa: PLC0415 - see hatch_mar.cli

            bless(target, device=device, as_json=as_json)
        else:
            rounds = 1 if flags["golden"] else 0
            tried = flags["load"] or flags["golden"]
            _check(subject, servers, device if tried else None, rounds=rounds, as_json=as_json)


def _check(
    subject: Subject,
    servers: tuple[str, ...],
    device: DeviceChoice | None,
    *,
    rounds: int,
    as_json: bool,
) -> None:
    from hatch_mar.cli.verdict import describe_trial, judge, render  # noqa: PLC0415

    archive, spec = open_subject(subject)
    with archive:
        verdict = judge(subject, archive, spec)
        failures = verdict.failures(servers)
        if failures:
            _fail(subject, verdict, failures, as_json=as_json)
        trial = None if device is None else _try(archive, device, rounds)
    problems = _golden_problems(trial)
    if as_json:
        document: dict[str, Any] = {**verdict.as_dict(), "problems": problems}
        emit(document if trial is None else {**document, "trial": describe_trial(trial)})
    else:
        for line in render(verdict, trial):
            say(line)
        for problem in problems:
            click.echo(f"hatch-mar: {problem['file']}: {problem['message']}", err=True)
    if problems:
        from hatch_mar.errors import GoldenError  # noqa: PLC0415 - for its exit code

        sys.exit(GoldenError.exit_code)


def open_subject(subject: Subject) -> tuple[Archive, MarSpec | None]:
    """Open what is to be checked; a project comes with what its author wrote.

    Raises:
        ProblemsError: all that is wrong with a project.
        TargetError: no such model is installed.
        ArchiveError: it cannot be read.
    """
    if subject.kind != "project" or subject.path is None:
        return subject.open(), None
    from hatch_mar.archive.planned import open_planned  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.project.planning import make_plan  # noqa: PLC0415

    spec = _read_whole_project(subject.path.resolve())
    return open_planned(make_plan(spec), spec.root), spec


def _read_whole_project(root: Path) -> MarSpec:
    """Read the project in `root`, as a model and as a package.

    Raises:
        ProblemsError: all that is wrong with either.
    """
    from hatch_mar.cli.authored import read_project  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.errors import ProblemsError  # noqa: PLC0415
    from hatch_mar.plugin.checks import file_problems  # noqa: PLC0415
    from hatch_mar.project.document import dig, find_hook, read_pyproject  # noqa: PLC0415

    spec: MarSpec | None = None
    problems: list[Problem] = []
    try:
        spec = read_project(root)
    except ProblemsError as error:
        problems += error.problems
    pyproject = read_pyproject(root, [])
    table = dig(pyproject, "project")
    hook, _ = find_hook(root, pyproject, [])
    if hook is not None and isinstance(table, dict):  # without it, no wheel holds the model
        problems += file_problems(table, spec)
    if spec is None or problems:
        raise ProblemsError(problems)
    return spec


def _try(archive: Archive, device: DeviceChoice, rounds: int) -> Trial:
    from hatch_mar.cli.trial import try_out  # noqa: PLC0415 - see hatch_mar.cli

    if rounds and not (archive.seal and archive.seal.examples):
        click.echo("hatch-mar: there are no golden examples to ask: tool.mar.examples", err=True)
    return try_out(archive, device=device, rounds=rounds)


def _fail(subject: Subject, verdict: Verdict, failures: list[Problem], *, as_json: bool) -> None:
    """Tell what is wrong, and exit."""
    from hatch_mar.cli import verdict as verdicts  # noqa: PLC0415 - see hatch_mar.cli

    if as_json:
        emit({**verdict.as_dict(), "problems": verdicts.as_json(failures)})
    else:
        count = len(failures)
        click.echo(
            f"hatch-mar: {subject.what}: {count} problem{'s' if count != 1 else ''}", err=True
        )
        for problem in failures:
            click.echo(f"  {problem}", err=True)
    sys.exit(verdict.exit_code)


def _golden_problems(trial: Trial | None) -> list[dict[str, str]]:
    return [
        {
            "file": answer.example.input.rpartition("/")[2],
            "key": "",
            "message": f"golden example: {answer.failure or answer.difference}",
        }
        for answer in (trial.answers if trial else ())
        if answer.fatal
    ]


def _explain(subject: Subject, *, as_json: bool) -> None:
    from hatch_mar.cli.authored import read_project  # noqa: PLC0415 - see hatch_mar.cli

    assert subject.path is not None
    settings = read_project(subject.path.resolve()).settings
    if as_json:
        found = [{"key": each.key, "value": each.value, "origin": each.origin} for each in settings]
        emit({"settings": found, "problems": []})
        return
    for line in _explained(settings):
        say(line)


def _explained(settings: tuple[Setting, ...]) -> Iterator[str]:
    width = max(len(setting.key) for setting in settings)
    for setting in settings:
        if setting.value is not None:
            value = json.dumps(setting.value, ensure_ascii=False, default=str)
            yield f"{setting.key:<{width}}  {value}  ({setting.origin})"
