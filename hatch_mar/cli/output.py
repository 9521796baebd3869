"""How commands talk: JSON for programs, columns and trees for people, a bar while it takes long.

What is asked for goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
"""The option `--json` of every command that has something to tell."""
PATIENCE = 1.0
"""Seconds of work before a person wants to see how far it is."""


def say(line: str) -> None:
    """Print `line`. Who has closed our stdout loses what we say, not what we do."""
    try:
        click.echo(line)
    except OSError:
        # Else what is in the buffer would be tried again, and fail again, at the very end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print `document` as JSON; paths and other values become their text."""
    say(json.dumps(document, indent=2, ensure_ascii=False, default=str))


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
    bar = click.progressbar(
        length=total, label=label, file=sys.stderr, hidden=True, show_pos=False, width=30
    )
    with bar:

        def advance(units: int) -> None:
            if bar.hidden and sys.stderr.isatty() and time.monotonic() - started > PATIENCE:
                bar.hidden = False
            bar.update(units)

        yield advance
