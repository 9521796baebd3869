"""The hallway: one file a subcommand, which imports a room only inside its command."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import click

from hatch_mar import __version__
from hatch_mar.errors import HatchMarError, ModelError, explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUBCOMMANDS = (
    "adopt",
    "archive",
    "cache",
    "check",
    "completion",
    "diff",
    "doctor",
    "explain-batching",
    "export",
    "init",
    "inspect",
    "lock",
    "plan",
    "pull",
    "schema",
    "serve",
    "shims",
    "tune",
    "verify",
)
"""Each is the object `command` of `hatch_mar.cli.<name>`, its hyphens being underscores."""


class Hallway(click.Group):
    """A group that imports the module of a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of all subcommands."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the subcommand `cmd_name`, or None if there is none."""
        if cmd_name not in SUBCOMMANDS:
            return None
        command = importlib.import_module(f"hatch_mar.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Hallway, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hatch-mar")
def program() -> None:
    """Build, check and serve models that are Python packages."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program `hatch-mar` and exit."""
    with orderly_exit():
        program.main(arguments, prog_name="hatch-mar")
    sys.exit(0)


@contextmanager
def orderly_exit() -> Iterator[None]:
    """Turn an expected error into its message on stderr and its exit code.

    The error of a model is preceded by the traceback of the handler that raised it.
    `HATCH_MAR_DEBUG=1` lets everything through.
    """
    _open_missing_streams()
    try:
        yield
    except (HatchMarError, OSError) as error:
        if os.environ.get("HATCH_MAR_DEBUG") == "1":
            raise
        if isinstance(error, ModelError) and error.traceback:
            click.echo(error.traceback.rstrip("\n"), err=True)
        message = str(error) if isinstance(error, HatchMarError) else explain(error)
        click.echo(
            message if message.startswith("hatch-mar:") else f"hatch-mar: {message}", err=True
        )
        sys.exit(error.exit_code if isinstance(error, HatchMarError) else 1)


def _open_missing_streams() -> None:
    """Stand in for the standard streams that a caller has closed, as `>&-` does.

    Else the next file that is opened gets their numbers, and what workers print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - for good
