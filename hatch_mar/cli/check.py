"""`hatch-mar check`: everything about a project that can be proved without building it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hatch_mar.archive.plan import Plan
    from hatch_mar.errors import ProblemsError
    from hatch_mar.project.spec import MarSpec, Setting


@click.command()
@click.argument(
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
)
@click.option("--explain", is_flag=True, help="Print each value and where it came from.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(directory: Path, *, explain: bool, as_json: bool) -> None:
    """Check the model project in DIRECTORY, the current one unless given.

    Imports none of its code and writes nothing. Exits with 2 if anything is wrong.
    """
    from hatch_mar.cli.authored import read_project  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.errors import ProblemsError  # noqa: PLC0415
    from hatch_mar.project.planning import make_plan  # noqa: PLC0415

    try:
        spec = read_project(directory.resolve())
        plan = make_plan(spec)
    except ProblemsError as error:
        if as_json:
            click.echo(json.dumps({"problems": _problems(error)}, indent=2))
            sys.exit(error.exit_code)
        raise
    if as_json:
        click.echo(json.dumps(_describe(spec, plan), indent=2, default=str))
        return
    lines = _explain(spec.settings) if explain else _summarise(spec, plan)
    for line in lines:
        click.echo(line)


def _problems(error: ProblemsError) -> list[dict[str, str]]:
    return [
        {"file": each.file, "key": each.key, "message": each.message} for each in error.problems
    ]


def _describe(spec: MarSpec, plan: Plan) -> dict[str, Any]:
    return {
        "name": spec.name,
        "version": spec.version,
        "description": spec.description,
        "package": spec.package,
        "script": spec.script,
        "handler": {"manifest": spec.handler.manifest, "found": spec.handler.found},
        "runtime": {"name": spec.runtime, "reason": spec.runtime_reason},
        "archive": {
            "filename": plan.filename,
            "format": plan.format,
            "compression": plan.compression,
        },
        "manifest": plan.manifest.as_dict(),
        "members": [{"name": each.name, "size": each.size()} for each in plan.members],
        "tarball": [entry.name for entry in spec.tarball_entries],
        "references": [reference.as_dict() for reference in spec.references],
        "examples": [example.as_dict() for example in spec.examples],
        "notes": list(spec.notes),
        "settings": [
            {"key": each.key, "value": each.value, "origin": each.origin} for each in spec.settings
        ],
        "problems": [],
    }


def _explain(settings: tuple[Setting, ...]) -> Iterator[str]:
    width = max(len(setting.key) for setting in settings)
    for setting in settings:
        if setting.value is not None:
            value = json.dumps(setting.value, ensure_ascii=False, default=str)
            yield f"{setting.key:<{width}}  {value}  ({setting.origin})"


def _summarise(spec: MarSpec, plan: Plan) -> Iterator[str]:
    from hatch_mar.project.weights import render_size  # noqa: PLC0415 - see hatch_mar.cli

    yield f"{spec.name} {spec.version}{': ' if spec.description else ''}{spec.description}"
    yield ""
    yield f"  handler   {spec.handler.manifest}  ({spec.handler.found})"
    yield f"  runtime   {spec.runtime}  ({spec.runtime_reason})"
    yield f"  archive   {plan.filename}  ({plan.format}, {plan.compression})"
    yield f"  wheel     {spec.package}  ({spec.script or 'no script'})"
    yield from _serving(spec.config)
    yield ""
    total = sum(each.size() for each in plan.members)
    yield f"  {len(plan.members)} members, {render_size(total)}"
    sizes = [render_size(each.size()) for each in plan.members]
    width = max((len(size) for size in sizes), default=0)
    for each, size in zip(plan.members, sizes, strict=True):
        yield f"    {size:>{width}}  {each.name}"
        if each.name == spec.tarball:
            yield from (f"    {'':>{width}}    {entry.name}" for entry in spec.tarball_entries)
    yield from _section("references", [f"{each.target}  {each.source}" for each in spec.references])
    yield from _section(
        "examples",
        [f"{each.input} -> {each.output}  ({each.content_type})" for each in spec.examples],
    )
    yield from _section("notes", list(spec.notes))


def _serving(config: Mapping[str, Any]) -> Iterator[str]:
    known = {key: value for key, value in config.items() if not isinstance(value, dict)}
    if known:
        yield f"  serving   {', '.join(f'{key} {value}' for key, value in known.items())}"


def _section(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield f"  {title}"
        yield from (f"    {line}" for line in lines)
