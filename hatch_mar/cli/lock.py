"""`hatch-mar lock`: which bytes the weights are that a project refers to, written into mar.lock."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hatch_mar.cli.output import columns, emit, json_option, say, shorten, told_as_json, visible
from hatch_mar.cli.verdict import as_json as list_problems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hatch_mar.errors import Problem
    from hatch_mar.project.locking import Locked
    from hatch_mar.weights.fetch import Progress
    from hatch_mar.weights.lockfile import Lock, LockedFile

DRIFTED = 1
"""Exit status of `--check` where the lock is not what it should be."""


@click.command()
@click.argument("target", default=".")
@click.option(
    "--check", is_flag=True, help="Write nothing and ask nobody; fail if the lock is out of date."
)
@click.option(
    "--upgrade", is_flag=True, help="Look at all of it again: branches and tags may have moved."
)
@json_option
def command(target: str, *, check: bool, upgrade: bool, as_json: bool) -> None:
    """Write down which bytes the weights are that the project TARGET refers to.

    TARGET is the current directory unless given. The result, mar.lock, belongs into version
    control: a build refuses a reference that is not in it. What is in it already and was not
    changed in pyproject.toml is kept, without asking anybody.
    """
    from hatch_mar.cli.authored import find_project, read_references  # noqa: PLC0415 - see cli
    from hatch_mar.weights.lockfile import LOCK_NAME, read_lock  # noqa: PLC0415

    if check and upgrade:
        raise click.UsageError("--check writes nothing, so there is nothing to --upgrade")
    with told_as_json(target, as_json=as_json):
        root = find_project(target)
        wanted = read_references(root)
        old = read_lock(root / LOCK_NAME)
        if check:
            from hatch_mar.project.locking import check_lock  # noqa: PLC0415 - see hatch_mar.cli

            _tell_drift(check_lock(wanted, old), old, as_json=as_json)
            return
        if not wanted and not (root / LOCK_NAME).exists():
            raise _nothing_to_lock()
        from hatch_mar.project.locking import make_lock  # noqa: PLC0415 - see hatch_mar.cli
        from hatch_mar.weights.cache import Cache  # noqa: PLC0415

        locked = make_lock(wanted, old, Cache(), tell=_tell, environ=os.environ, upgrade=upgrade)
        written = _write(root / LOCK_NAME, locked.lock)
    _report(locked, written=written, as_json=as_json)


def _nothing_to_lock() -> Exception:
    from hatch_mar.errors import Problem, ProblemsError  # noqa: PLC0415 - see hatch_mar.cli

    message = (
        "nothing to lock: no file is referred to; a `source` that is a URI or an absolute path is "
        "a reference"
    )
    return ProblemsError([Problem("pyproject.toml", "tool.mar.weights", message)])


@contextmanager
def _tell(target: str, size: int | None, *, reading: bool = False) -> Iterator[Progress]:
    """Show on standard error how far one file is."""
    from hatch_mar.cli.fetching import told  # noqa: PLC0415 - see hatch_mar.cli

    with told(target, size, verb="hashing" if reading else "fetching") as progress:
        yield progress


def _write(path: Path, lock: Lock) -> bool:
    """Replace the file at `path` whole, if it says something else; say whether it did.

    A lock of nothing is no file.
    """
    from hatch_mar.archive.staging import staged_file  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.weights.lockfile import render_lock  # noqa: PLC0415

    if not lock.files:
        path.unlink(missing_ok=True)
        return True
    text = render_lock(lock).encode()
    if path.is_file() and path.read_bytes() == text:
        return False
    with staged_file(path) as file:
        file.write(text)
    return True


def _tell_drift(problems: list[Problem], lock: Lock, *, as_json: bool) -> None:
    """Print what is out of date, and exit; return if nothing is."""
    from hatch_mar.weights.lockfile import COMMAND, LOCK_NAME  # noqa: PLC0415 - see hatch_mar.cli

    if as_json:
        files = [_describe(file) for file in lock.files]
        emit({"lock": LOCK_NAME, "files": files, "problems": list_problems(problems)})
    elif problems:
        click.echo(f"hatch-mar: {LOCK_NAME} is out of date; run `{COMMAND}`", err=True)
        for problem in problems:
            click.echo(f"  {problem}", err=True)
    elif lock.files:
        count = len(lock.files)
        say(f"{LOCK_NAME} is up to date: {count} file{'s' if count > 1 else ''}")
    else:
        say("nothing to lock: no weights are referred to")
    if problems:
        sys.exit(DRIFTED)


def _report(locked: Locked, *, written: bool, as_json: bool) -> None:
    from hatch_mar.weights.lockfile import LOCK_NAME  # noqa: PLC0415 - see hatch_mar.cli

    files = locked.lock.files
    if as_json:
        emit(
            {
                "lock": LOCK_NAME,
                "written": written,
                "files": [
                    {**_describe(file), "state": locked.states[file.target]} for file in files
                ],
                "removed": list(locked.removed),
                "notes": list(locked.notes),
                "problems": [],
            }
        )
        return
    if not files:
        say(f"{LOCK_NAME} is gone: nothing is referred to any more")
        return
    for line in _render(locked):
        say(line)
    say(f"{LOCK_NAME} {'written' if written else 'is as it was'}")
    for note in locked.notes:
        click.echo(f"note: {visible(note)}", err=True)


def _render(locked: Locked) -> Iterator[str]:
    from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

    rows: list[tuple[str, ...]] = [
        (
            visible(file.target),
            render_size(file.size),
            f"sha256 {shorten(file.sha256)}",
            locked.states[file.target],
            visible(file.resolved),
        )
        for file in locked.lock.files
    ]
    rows += [(visible(target), "", "", "removed", "") for target in locked.removed]
    yield from columns(rows, indent="", right=(1,))


def _describe(file: LockedFile) -> dict[str, Any]:
    return {
        "target": file.target,
        "source": file.source,
        "resolved": file.resolved,
        "size": file.size,
        "sha256": file.sha256,
        "mirrors": list(file.mirrors),
        "names": list(file.names),
    }
