"""The program `torch-model-archiver`, as scripts know it: silent, and exiting with 0, 1 or 2."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from hatch_mar.cli.archive import AbbreviatingCommand, archiver_options, write_order
from hatch_mar.errors import HatchMarError, explain

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "torch-model-archiver"


@click.command(
    PROGRAM,
    cls=AbbreviatingCommand,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@archiver_options
def program(**given: Any) -> None:  # noqa: ANN401 - the options
    """Torch Model Archiver Tool, by hatch-mar: pack a model's files into an archive."""
    write_order(given, warn=lambda text: f"WARNING - {text}")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit. `HATCH_MAR_DEBUG=1` lets errors through."""
    try:
        program.main(arguments, prog_name=PROGRAM)
    except (HatchMarError, OSError) as error:
        if os.environ.get("HATCH_MAR_DEBUG") == "1":
            raise
        message = str(error) if isinstance(error, HatchMarError) else explain(error)
        click.echo(f"ERROR - {message.removeprefix('hatch-mar: ')}", err=True)
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
