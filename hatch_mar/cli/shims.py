"""`hatch-mar shims`: the programs that hatch-mar replaces, under their old names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hatch_mar.cli.old_names import OLD_NAMES, Home, find_shims, install, uninstall
from hatch_mar.cli.output import columns, emit, json_option, say, told_as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatch_mar.cli.old_names import Shim


def _programs(function: Callable[..., Any]) -> Callable[..., Any]:
    choice = click.Choice(tuple(OLD_NAMES))
    return click.argument("programs", metavar="[PROGRAM]...", nargs=-1, type=choice)(function)


@click.group()
def command() -> None:
    """Give this environment the old names of the programs that hatch-mar replaces.

    Nothing that is not hatch-mar's own is ever overwritten or removed.
    """


@command.command("install")
@_programs
@json_option
def install_command(programs: tuple[str, ...], *, as_json: bool) -> None:
    """Write PROGRAM, all of them unless named, beside this environment's others.

    With torch-model-archiver comes the package model_archiver, for scripts that import it.
    """
    shims = find_shims(programs, Home.of_this_process())
    with told_as_json("", as_json=as_json):
        written = install(shims)
    if as_json:
        emit({"written": written, "problems": []})
        return
    for shim in shims:
        say(f"{shim.program}")
        found = shutil.which(shim.name)
        if found is None or not os.path.samefile(found, shim.program):  # noqa: PTH121 - of two strings
            other = f"it finds {found}" if found else "its directory is not on PATH"
            click.echo(f"hatch-mar: warning: a shell does not find {shim.name}: {other}", err=True)


@command.command("uninstall")
@_programs
@json_option
def uninstall_command(programs: tuple[str, ...], *, as_json: bool) -> None:
    """Remove what `install` wrote, of PROGRAM, or of all of them."""
    with told_as_json("", as_json=as_json):
        removed = uninstall(find_shims(programs, Home.of_this_process()))
    if as_json:
        emit({"removed": removed, "problems": []})
        return
    for path in removed:
        say(f"removed {path}")


@command.command("list")
@json_option
def list_command(*, as_json: bool) -> None:
    """Say which of the old names are here, and whose they are."""
    with told_as_json("", as_json=as_json):
        rows = [(shim, shim.state()) for shim in find_shims((), Home.of_this_process())]
    if as_json:
        emit([_describe(shim, state) for shim, state in rows])
        return
    for line in columns([(shim.name, state, str(shim.program)) for shim, state in rows]):
        say(line)


def _describe(shim: Shim, state: str) -> dict[str, Any]:
    files = [path for path in shim.files() if Path(path).exists()]
    return {"name": shim.name, "state": state, "program": shim.program, "files": files}
