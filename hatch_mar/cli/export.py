"""`hatch-mar export`: the archive, from a wheel that was built with it."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model", metavar="WHEEL_OR_NAME")
@click.option(
    "-d",
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where to write it; the current directory unless given.",
)
def command(model: str, directory: Path) -> None:
    """Write the .mar that WHEEL_OR_NAME was built with, byte for byte.

    WHEEL_OR_NAME is a wheel's file name, or the name of a model that is installed.
    """
    from hatch_mar.archive.export import export_wheel  # noqa: PLC0415 - see hatch_mar.cli

    click.echo(export_wheel(_locate(model), directory))


def _locate(model: str) -> Path:
    """Return the wheel's file or the installed model's directory.

    Raises:
        TargetError: there is neither, or the model is installed in editable mode.
    """
    from hatch_mar.archive.installed import find_model_directory  # noqa: PLC0415
    from hatch_mar.errors import TargetError  # noqa: PLC0415

    if Path(model).exists():
        return Path(model)
    if model.endswith(".whl"):
        raise TargetError(f"{model}: no such file")
    return find_model_directory(model)
