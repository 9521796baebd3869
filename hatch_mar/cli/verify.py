"""`hatch-mar verify`: whether an archive still is what was sealed."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from hatch_mar.cli.output import columns, emit, json_option, progress, say, told_as_json, visible
from hatch_mar.cli.subject import TARGET, find_subject
from hatch_mar.errors import ArchiveError, TargetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from hatch_mar.archive.verify import Flaw, Verdict
    from hatch_mar.cli.subject import Subject
    from hatch_mar.weights.reference import Reference

_WITHOUT_SEAL = {
    "mar": "it has no seal: only the checksums of the zip could be verified, nobody's word",
    "wheel": "it has no seal: only the wheel's own RECORD could be verified",
    "tgz": "it has no seal: only the checksum of the gzip could be verified, nobody's word",
    "dir": "it has no seal: its files were read, but nothing says what they should be",
}


@click.command()
@click.argument("target", type=TARGET)
@click.option("--require-seal", is_flag=True, help="Take an archive without a seal for broken.")
@json_option
def command(target: str, *, require_seal: bool, as_json: bool) -> None:
    """Read all of TARGET and compare every member with the seal.

    TARGET is an archive of any format, a wheel, or the name of an installed model. A wheel is
    compared with its RECORD too, and weights that are named and in the cache, with their digests.
    Exits with 3 if anything is not what it should be, and names all of it.
    """
    from hatch_mar.archive.verify import Flaw  # noqa: PLC0415 - see hatch_mar.cli

    with told_as_json(target, as_json=as_json):
        path = _locate(find_subject(target))
        verdict = _verify(path)
        references, wrong = _verify_references(verdict.seal.references if verdict.seal else ())
        flaws = [*verdict.flaws, *wrong]
        if require_seal and verdict.seal is None and not flaws:
            flaws.append(Flaw("", "has no seal"))
    if as_json:
        emit(_describe(path, verdict, references, flaws))
    else:
        for line in _render(path, verdict, references, flaws):
            say(line)
    if flaws:
        raise SystemExit(ArchiveError.exit_code)


def _locate(subject: Subject) -> Path:
    """Return the file or directory that can be verified.

    Raises:
        TargetError: there is none, or nothing that a seal could be on.
    """
    from hatch_mar.archive.installed import find_model_directory  # noqa: PLC0415 - see cli

    if subject.kind == "project":
        raise TargetError(
            f"{subject.what}: a project has no seal yet; build it, or see `hatch-mar check`"
        )
    return subject.path if subject.path is not None else find_model_directory(subject.what)


def _verify(path: Path) -> Verdict:
    from hatch_mar.archive.verify import Inspection  # noqa: PLC0415 - see hatch_mar.cli

    with closing(Inspection(path)) as inspection, progress("verifying", inspection.size) as advance:
        return inspection.run(advance)


def _verify_references(
    references: Iterable[Reference],
) -> tuple[list[dict[str, Any]], list[Flaw]]:
    """Return what became of every reference, and what is wrong in the cache."""
    from hatch_mar.archive.verify import verify_cached  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.weights.cache import find_cached  # noqa: PLC0415

    states: list[dict[str, Any]] = []
    flaws: list[Flaw] = []
    for reference in references:
        file = find_cached(reference)
        if file is not None:
            with progress(f"verifying {reference.target}", file.stat().st_size) as advance:
                flaw = verify_cached(reference, file, advance)
            flaws += [flaw] if flaw else []
        states.append({"target": reference.target, "cached": None if file is None else str(file)})
    return states, flaws


def _describe(
    path: Path, verdict: Verdict, references: list[dict[str, Any]], flaws: list[Flaw]
) -> dict[str, Any]:
    return {
        "path": str(path),
        "kind": verdict.kind,
        "ok": not flaws,
        "sealed": verdict.seal is not None,
        "members": verdict.members,
        "size": verdict.size,
        "references": references,
        "problems": [
            {"file": str(path), "key": flaw.name, "message": flaw.message} for flaw in flaws
        ],
    }


def _render(
    path: Path, verdict: Verdict, references: list[dict[str, Any]], flaws: list[Flaw]
) -> Iterator[str]:
    from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

    sealed = "as sealed" if verdict.seal else "readable"
    result = f"{len(flaws)} wrong" if flaws else sealed
    members = f"{verdict.members} member{'s' if verdict.members != 1 else ''}"
    yield f"{visible(str(path))}: {members}, {render_size(verdict.size)}, {result}"
    yield from columns([(visible(flaw.name or "-"), visible(flaw.message)) for flaw in flaws])
    rows = [
        (
            visible(each["target"]),
            "in the cache, as locked" if each["cached"] else "not in the cache: not verified",
        )
        for each in references
        if not any(flaw.name == each["target"] for flaw in flaws)
    ]
    yield from columns(rows)
    if verdict.seal is None:
        yield f"  note: {_WITHOUT_SEAL[verdict.kind]}"
