"""`hatch-mar inspect`: what a model is, whatever holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hatch_mar.cli.output import columns, emit, json_option, say, shorten, told_as_json, visible
from hatch_mar.cli.subject import TARGET, find_subject
from hatch_mar.cli.tree import tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_KINDS = {
    "mar": "archive",
    "tgz": "archive, .tar.gz",
    "dir": "archive, unpacked",
    "wheel": "wheel",
    "editable": "installed in editable mode",
    "project": "project, as a build would pack it",
}


@click.command()
@click.argument("target", type=TARGET, default=".")
@json_option
def command(target: str, *, as_json: bool) -> None:
    """Show what TARGET is: who it is, how it is served, what is in it and what it only names.

    TARGET is a project (the current directory unless given), an archive of any format, a wheel, or
    the name of an installed model. Nothing of it is run or fetched, and digests are what the seal
    says: `hatch-mar verify` compares them.
    """
    from hatch_mar.archive.portrait import portray  # noqa: PLC0415 - see hatch_mar.cli

    with told_as_json(target, as_json=as_json), find_subject(target).open() as archive:
        portrait = portray(archive)
    if as_json:
        emit(portrait)
        return
    for line in _render(portrait):
        say(line)


def _render(portrait: Mapping[str, Any]) -> Iterator[str]:
    yield visible(f"{portrait['name']} {portrait['version'] or '(no version)'}")
    yield ""
    yield from columns([(key, visible(value)) for key, value in _facts(portrait) if value])
    members = portrait["members"]
    size = sum(each["size"] for each in members)
    yield from _section(
        f"{len(members)} members, {_size(size)}",
        tree(
            (each["name"], _size(each["size"]), shorten(each["sha256"] or "")) for each in members
        ),
    )
    for each in portrait["extraFiles"]:
        files = each["files"] or ()
        rows = [(file["name"], _size(file["size"]), "") for file in files]
        yield from _section(f"in {visible(each['tarball'])}", tree(rows))
    yield from _section("references", columns(_references(portrait["references"]), right=(1,)))
    examples = [
        (each["input"], each["output"], each["contentType"]) for each in portrait["examples"]
    ]
    yield from _section("examples", columns(_visible(examples)))
    yield from _section(
        "requirements", columns(_visible([[each] for each in portrait["requirements"]]))
    )
    yield from _section(
        "unpickled without restriction",
        columns(_visible([[each] for each in portrait["trustedPickle"]])),
    )
    yield from _section("warnings", columns(_visible([[each] for each in portrait["warnings"]])))


def _facts(portrait: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "is", f"{portrait['path']} ({_KINDS[portrait['kind']]})"
    yield "handler", portrait["handler"] or "none"
    yield "model file", portrait["modelFile"] or ""
    yield "weights", portrait["serializedFile"] or ""
    yield "runtime", portrait["runtime"] or ""
    yield "sealed", "yes" if portrait["sealed"] else "no: nothing says what its bytes must be"
    made = portrait["createdOn"]
    yield "created", f"{made} (archiver {portrait['archiverVersion']})" if made else ""
    values = portrait["config"]["values"]
    for number, (key, value) in enumerate(_flatten(values)):
        yield "" if number else "config", f"{key}: {value}"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _references(references: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for each in references:
        yield (
            visible(each["target"]),
            "" if each["size"] is None else _size(each["size"]),
            shorten(each["sha256"]),
            "in the cache" if each["cached"] else "not in the cache",
            visible(each["source"]),
        )


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield ""
        yield title
        yield from found


def _visible(rows: Iterable[Iterable[str]]) -> list[list[str]]:
    return [[visible(cell) for cell in row] for row in rows]


def _size(size: int) -> str:
    from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

    return render_size(size)
