"""`hatch-mar init`: a project from a checkpoint, or from nothing."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from hatch_mar.cli.output import emit, json_option, say
from hatch_mar.errors import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.project.founding.project import Foundation


class _File(click.Path):
    """A file that is there, and is one: reading a pipe would wait for whoever writes to it."""

    def __init__(self) -> None:
        """Take paths to files."""
        super().__init__(path_type=Path, exists=True, dir_okay=False)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        """Return the path.

        Raises:
            click.BadParameter: there is no such file, or it is a device or a pipe.
        """
        path = super().convert(value, param, ctx)
        if not Path(os.fsdecode(path)).is_file():
            self.fail(f"'{os.fsdecode(value)}' is not a file but a device or a pipe", param, ctx)
        return path


FILE = _File()


@click.command()
@click.argument("name")
@click.option(
    "--weights",
    type=FILE,
    metavar="FILE",
    help="A state_dict, safetensors, TorchScript, .pt2 or ONNX file; what it is, is found out.",
)
@click.option("--model-file", type=FILE, metavar="FILE", help="The network's Python file.")
@click.option("--model-class", metavar="CLASS", help="The network in it, where it has several.")
@click.option(
    "--model-arg",
    "model_args",
    multiple=True,
    metavar="NAME=VALUE",
    help="An argument of its constructor: JSON, or else text. May be given several times.",
)
@click.option(
    "--handler",
    metavar="HANDLER",
    help="A handler of your own, FILE.py or FILE.py:function, or the name of a default one.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the project goes; NAME unless given. Nothing in it is overwritten.",
)
@json_option
def command(
    name: str,
    *,
    weights: Path | None,
    model_file: Path | None,
    model_class: str | None,
    model_args: tuple[str, ...],
    handler: str | None,
    directory: Path | None,
    as_json: bool,
) -> None:
    """Make a project NAME that builds and serves at once.

    Without --weights it holds a small complete model, ready to be replaced.
    """
    from hatch_mar.project.founding.newfiles import new_files  # noqa: PLC0415
    from hatch_mar.project.founding.project import Wish, found_project  # noqa: PLC0415 - see hatch_mar.cli

    root = directory or Path(name)
    try:
        foundation = found_project(
            Wish(
                name=name,
                root=root,
                weights=weights,
                model_file=model_file,
                model_class=model_class,
                model_args=_read_arguments(model_args),
                handler=_read_handler(handler),
            )
        )
        with new_files(root, foundation.files):
            notes = _check(root)
    except ProblemsError as error:
        if as_json:
            listed = [
                {"file": each.file, "key": each.key, "message": each.message}
                for each in error.problems
            ]
            emit({"problems": listed})
            sys.exit(error.exit_code)
        raise
    if as_json:
        emit(
            {
                "directory": str(root),
                "found": foundation.found,
                "files": list(foundation.files),
                "notes": notes,
                "problems": [],
            }
        )
    else:
        _report(root, foundation, notes)


def _read_arguments(texts: Sequence[str]) -> dict[str, Any]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"'{text}' is not NAME=VALUE", param_hint="--model-arg")
        try:
            found[name] = json.loads(value, parse_constant=_refuse)
        except ValueError:
            found[name] = value
    return found


def _refuse(constant: str) -> NoReturn:
    """Leave NaN and the infinities, which JSON does not have either, to be text."""
    raise ValueError(constant)


def _read_handler(text: str | None) -> str | None:
    """Return `text`, if it is a default handler or names a file that is there."""
    from hatch_mar.project.handler import DEFAULT_HANDLERS  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.project.suggestion import did_you_mean  # noqa: PLC0415

    if text is None or text in DEFAULT_HANDLERS or Path(text.partition(":")[0]).is_file():
        return text
    names = ", ".join(DEFAULT_HANDLERS)
    hint = did_you_mean(text, DEFAULT_HANDLERS)
    raise click.BadParameter(
        f"'{text}' is neither a file nor one of {names}{hint}", param_hint="--handler"
    )


def _check(root: Path) -> list[str]:
    """Return what a build of the new project has to remark.

    Raises:
        ProblemsError: it cannot be built as it is: something is wrong with the author's own files.
    """
    from hatch_mar.cli.authored import read_project  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.project.planning import make_plan  # noqa: PLC0415

    spec = read_project(root.resolve())
    make_plan(spec)
    return list(spec.notes)


def _report(root: Path, foundation: Foundation, notes: Sequence[str]) -> None:
    say(f"{foundation.draft.project}: {foundation.found}")
    for name in foundation.files:
        say(f"  {root / name}")
    for note in notes:
        say(f"note: {note}")
    say("")
    say(f"Next: cd {shlex.quote(str(root))} && hatch build")
