"""How commands talk: JSON for programs, columns and trees for people, a bar while it takes long.

What is asked for goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hatch_mar.errors import HatchMarError, Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
"""The option `--json` of every command that has something to tell."""
_BRANCHES = str.maketrans("\u251c\u2514\u2502\u2500", "|`|-")
"""The lines of a tree, for terminals that have no better ones."""
PATIENCE = 1.0
"""Seconds of work before a person wants to see how far it is."""


def say(line: str) -> None:
    """Print `line`. Who has closed our stdout loses what we say, not what we do.

    Characters that the terminal's encoding does not have are escaped.

    Raises:
        HatchMarError: it cannot be written: who keeps it in a file would have half of it.
    """
    try:
        click.echo(line if _can_print(line) else _escape(line))
    except OSError as error:
        # Else what is in the buffer would be tried again, and fail again, at the very end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise HatchMarError(f"standard output: cannot be written: {error.strerror}") from error


def emit(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print `document` as JSON; paths and other values become their text."""
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
    say(text if _can_print(text) else json.dumps(document, indent=2, default=str))


def visible(text: str) -> str:
    """Return `text` on one line, without what would steer a terminal: for words of strangers."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def shorten(sha256: str) -> str:
    """Return as much of a digest as tells it from others: 12 of its 64 digits."""
    return sha256[:12]


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _escape(text: str) -> str:
    encoding = sys.stdout.encoding or "utf-8"
    return text.translate(_BRANCHES).encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def told_as_json(file: str, *, as_json: bool) -> Iterator[None]:
    """With `as_json`, print what stops the block as a document: `{"problems": [...]}`.

    Each problem has `file`, `key` and `message`; an error that is no list of problems is one, of
    `file`. The exit code is the error's own either way.
    """
    try:
        yield
    except HatchMarError as error:
        if not as_json:
            raise
        found = (
            error.problems if isinstance(error, ProblemsError) else (Problem(file, "", str(error)),)
        )
        emit({"problems": [asdict(problem) for problem in found]})
        sys.exit(error.exit_code)


def columns(
    rows: Iterable[Sequence[str]], *, indent: str = "  ", right: Sequence[int] = ()
) -> Iterator[str]:
    """Yield `rows`, all of one length, as lines with aligned columns; those in `right` flush right.

    The last column is never padded.
    """
    table = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"{indent}{'  '.join(cells)}".rstrip()


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told of every piece of work that is done, `total` units in all.

    A bar appears on a terminal, once the work has taken longer than `PATIENCE`.
    """
    started = time.monotonic()
    # A line that does not fit would be printed anew every time, below the last one.
    width = min(30, shutil.get_terminal_size().columns - len(label) - len("  []  100%  00:00:00 "))
    bar = click.progressbar(
        length=total, label=label, file=sys.stderr, hidden=True, show_pos=False, width=max(width, 1)
    )
    with bar:

        def advance(units: int) -> None:
            if bar.hidden and sys.stderr.isatty() and time.monotonic() - started > PATIENCE:
                bar.hidden = False
            bar.update(units)

        yield advance
