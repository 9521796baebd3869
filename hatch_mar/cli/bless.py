"""`hatch-mar check --bless`: what the model answers now is what it shall answer from now on."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatch_mar.cli.output import columns, emit, say, visible
from hatch_mar.errors import GoldenError, Problem, ProblemsError

if TYPE_CHECKING:
    from hatch_mar.cli.options import DeviceChoice
    from hatch_mar.cli.trial import Answer

ROUNDS = 2
"""A model that gives two answers to one question has none to record."""


def bless(target: str, *, device: DeviceChoice, as_json: bool) -> None:
    """Ask the model of the project `target` its examples, and write its answers into the project.

    An answer within the tolerance of the recorded one leaves the file as it is. All files are
    written, or none.

    Raises:
        ProblemsError: the project is wrong, or has no examples.
        GoldenError: an example was answered with an error, or differently each time.
        ModelError: the model cannot be loaded.
    """
    from hatch_mar.archive.planned import open_planned  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.cli.authored import find_project, read_project  # noqa: PLC0415
    from hatch_mar.cli.trial import try_out  # noqa: PLC0415
    from hatch_mar.project.planning import make_plan  # noqa: PLC0415

    root = find_project(target)
    spec = read_project(root, unanswered=True)
    if not spec.examples:
        message = 'there are none to bless; write [{ input = "...", output = "..." }]'
        raise ProblemsError([Problem("pyproject.toml", "tool.mar.examples", message)])
    with open_planned(make_plan(spec), root) as archive:
        trial = try_out(archive, device=device, rounds=ROUNDS)
    for answer in trial.answers:
        if answer.failure is not None:
            raise GoldenError(f"{_name(answer)}: {answer.failure}; nothing was written")
    if trial.unsteady:
        names = ", ".join(each.rpartition("/")[2] for each in trial.unsteady)
        raise GoldenError(
            f"{names}: the model answers differently each time, so there is nothing to record; "
            "seed what is random, or raise `rtol` and `atol`; nothing was written"
        )
    changes = [
        _record(answer, path) for answer, path in zip(trial.answers, spec.answers, strict=True)
    ]
    _write({path: body for path, body, _ in changes if body is not None})
    _tell(root, changes, as_json=as_json)


def _name(answer: Answer) -> str:
    return answer.example.input.rpartition("/")[2]


def _record(answer: Answer, path: Path) -> tuple[Path, bytes | None, str]:
    """Return the file of an answer, its new content (None: as it is), and what changes."""
    if not path.exists():
        return path, _as_text(answer.body), "new"
    if answer.difference is None:
        return path, None, "unchanged"
    return path, _as_text(answer.body), answer.difference


def _as_text(body: bytes) -> bytes:
    """End JSON, which is compared by value, in a line break, as files in a repository do."""
    try:
        json.loads(body)
    except ValueError:
        return body
    return body.rstrip(b"\n") + b"\n"


def _write(contents: dict[Path, bytes]) -> None:
    """Write every file beside its place first, so that a full disk changes none."""
    staged: list[tuple[str, Path]] = []
    try:
        for path, body in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            staged.append((name, path))
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
            Path(name).chmod(path.stat().st_mode if path.exists() else 0o644)
        for name, path in staged:
            Path(name).replace(path)
    finally:
        for name, _ in staged:
            Path(name).unlink(missing_ok=True)


def _tell(root: Path, changes: list[tuple[Path, bytes | None, str]], *, as_json: bool) -> None:
    rows = [
        (path.relative_to(root).as_posix(), "unchanged" if body is None else "written", why)
        for path, body, why in changes
    ]
    if as_json:
        found: list[dict[str, Any]] = [
            {"file": file, "written": word == "written", "change": why} for file, word, why in rows
        ]
        emit({"answers": found, "problems": []})
        return
    shown = [(visible(file), word, visible(why) if word != why else "") for file, word, why in rows]
    for line in columns(shown, indent=""):
        say(line)
