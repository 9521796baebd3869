"""`hatch-mar schema`: what editors and validators need to know of `[tool.mar]`."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "--pyproject",
    is_flag=True,
    help="Print a schema of the whole pyproject.toml, as editors want it.",
)
def command(*, pyproject: bool) -> None:
    """Print the JSON schema (draft 7) of the table [tool.mar]."""
    from hatch_mar.cli.output import emit  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.project.schema import pyproject_schema, tool_schema  # noqa: PLC0415

    emit(pyproject_schema() if pyproject else tool_schema())
