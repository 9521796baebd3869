"""A call of torch-model-archiver, or of a `build.sh` around `handler_factory`, as it was written.

Two tables of options and Python's own argument parser, so that abbreviations, `--option=value` and
`-v1.0` mean what they mean there.
"""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NoReturn

from hatch_mar.errors import Problem, ProblemsError
from hatch_mar.project.suggestion import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ARCHIVER = {
    "name": ("--model-name",),
    "version": ("--version", "-v"),
    "handler": ("--handler",),
    "serialized_file": ("--serialized-file",),
    "model_file": ("--model-file",),
    "extra_files": ("--extra-files",),
    "requirements_file": ("--requirements-file", "-r"),
    "config_file": ("--config-file", "-c"),
    "runtime": ("--runtime",),
    "export_path": ("--export-path",),
    "model_path": ("--model-path",),
    "archive_format": ("--archive-format",),
}
"""Options of torch-model-archiver 0.12, and the `--model-path` of older ones, by field."""
BUILD_SCRIPT = {
    "name": ("--model_name",),
    "version": ("--version",),
    "handler": ("--model_file",),
    "serialized_file": ("--checkpoint_file",),
    "extra_files": ("--extra_files",),
    "requirements_file": ("--requirements_file",),
    "config_file": ("--config_file",),
}
"""Options of the build script: its model file is what makes the handler."""
REQUIRED = ("name", "version", "handler")
CONTROL = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<"})
"""Words that end a command in a shell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiverCall:
    """What was asked for. Paths are as they were written; None is an option that was not given."""

    name: str
    version: str
    handler: str
    serialized_file: str | None = None
    model_file: str | None = None
    extra_files: tuple[str, ...] = ()
    requirements_file: str | None = None
    config_file: str | None = None
    runtime: str | None = None
    export_path: str | None = None
    model_path: str | None = None
    archive_format: str | None = None
    from_script: bool = False
    """Whether it is a call of the build script."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ProblemsError([Problem("", "command line", message)])


def split_command(text: str) -> list[str]:
    """Return the words of a command line as a shell splits it, over several lines or one.

    Raises:
        ProblemsError: a quote is not closed.
    """
    try:
        return shlex.split(re.sub(r"\\\r?\n", " ", text), comments=True)
    except ValueError as error:
        problem = Problem("", "command line", f"cannot be split into words: {error}")
        raise ProblemsError([problem]) from error


def is_call(words: Sequence[str]) -> bool:
    """Say whether `words` could be a call of an archiver: there is an option among them."""
    return any(word.startswith("-") for word in words[1:])


def parse_call(words: Sequence[str]) -> ArchiverCall:
    """Read a command line, program first.

    Raises:
        ProblemsError: an option is missing or unknown, or a word means something to a shell alone.
    """
    start = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    program, options = words[:start], words[start:]
    problems = [
        Problem("", "command line", f"'{word}' ends the command; give one command")
        for word in words
        if word in CONTROL
    ]
    problems += [
        Problem("", "command line", f"'{word}' is for a shell to fill in; write what it stands for")
        for word in options
        if re.search(r"\$[\w({]|`", word)
    ]
    if problems:
        raise ProblemsError(problems)
    script = _is_script(program, options)
    table = BUILD_SCRIPT if script else ARCHIVER
    values = _read_options(table, options)
    extra = [each.strip() for each in (values.pop("extra_files") or "").split(",")]
    return ArchiverCall(
        extra_files=tuple(each for each in extra if each), from_script=script, **values
    )


def _is_script(program: Sequence[str], options: Sequence[str]) -> bool:
    names = [option.partition("=")[0] for option in options if option.startswith("--")]
    if any("_" in name for name in names):
        return True
    return bool(program) and PurePosixPath(program[-1]).suffix == ".sh" and not names


def _read_options(table: Mapping[str, Sequence[str]], options: Sequence[str]) -> dict[str, str]:
    parser = _Parser(prog="", add_help=False)
    for field, names in table.items():
        parser.add_argument(*names, dest=field)
    parser.add_argument("-f", "--force", action="store_true")
    found, strange = parser.parse_known_args(list(options))
    values = dict(vars(found))
    values.pop("force")
    known = [name for names in table.values() for name in names]
    problems = [
        Problem("", word, f"is no option of it{did_you_mean(word, known)}")
        if word.startswith("-")
        else Problem("", "command line", f"'{word}' belongs to no option")
        for word in strange
    ]
    problems += [
        Problem("", table[field][0], "is required")
        for field in REQUIRED
        if not values[field] and not (field == "version" and values[field] == "")
    ]
    if problems:
        raise ProblemsError(problems)
    return values
