"""`hatch-mar diff`: what differs between two models, whatever holds each of them."""

from __future__ import annotations

import difflib
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from hatch_mar.cli.output import (
    columns,
    emit,
    json_option,
    progress,
    say,
    shorten,
    told_as_json,
    visible,
)
from hatch_mar.cli.subject import TARGET, find_subject
from hatch_mar.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hatch_mar.archive.compare import Change, Comparison
    from hatch_mar.archive.read import Archive
    from hatch_mar.archive.seal import Digest

DIFFERENT = 1
"""Exit status when there are differences, as diff(1) has it; trouble is more than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """Everything that differs."""

    members: Comparison
    words: Mapping[str, list[Change]]
    """Changed keys of the `manifest`, the `config` and the `seal`."""
    texts: Mapping[str, str]
    """Unified diffs by member name, where they were asked for."""

    @property
    def same(self) -> bool:
        """Whether there is nothing."""
        return self.members.same and not any(self.words.values())


@click.command()
@click.argument("left", type=TARGET)
@click.argument("right", type=TARGET)
@click.option("--text", is_flag=True, help="Show how members that are text differ.")
@click.option(
    "--all", "everything", is_flag=True, help="Compare when and how they were packed too."
)
@json_option
def command(left: str, right: str, *, text: bool, everything: bool, as_json: bool) -> None:
    """Compare LEFT with RIGHT: their members, manifests, model-config.yaml and seals.

    Each is an archive of any format, a wheel, the name of an installed model, or a project, as a
    build would pack it. Exits with 0 if they are the same, 1 if not, and more if they cannot be
    compared. When they were made and in which format does not count, unless --all is given.
    """
    with told_as_json(f"{left}, {right}", as_json=as_json):
        try:
            found = _compare(left, right, text=text, everything=everything)
        except OSError as error:  # whose exit status would be 1
            raise ArchiveError(str(error)) from error
    if as_json:
        emit({"left": left, "right": right, **_describe(found)})
    else:
        for line in _render(found, left, right):
            say(line)
    if not found.same:
        raise SystemExit(DIFFERENT)


def _compare(left: str, right: str, *, text: bool, everything: bool) -> _Difference:
    from hatch_mar.archive.compare import (  # noqa: PLC0415 - see hatch_mar.cli
        ABOUT,
        compare,
        find_changes,
        list_config,
        list_manifest,
        list_seal,
    )

    with ExitStack() as stack:
        ours = stack.enter_context(find_subject(left).open())
        theirs = stack.enter_context(find_subject(right).open())
        total = sum(each.size(name) for each in (ours, theirs) for name in each.names())
        advance = stack.enter_context(progress("comparing", total))
        members = compare(ours, theirs, without=ABOUT, advance=advance)
        seals = [list_seal(each, everything=everything) for each in (ours, theirs)]
        if not (ours.seal and theirs.seal):
            for seal in seals:
                seal.pop("runtime", None)  # only one of the two says
        words = {
            "manifest": find_changes(
                list_manifest(ours, everything=everything),
                list_manifest(theirs, everything=everything),
            ),
            "config": find_changes(list_config(ours), list_config(theirs)),
            "seal": find_changes(*seals),
        }
        texts = dict(_compare_texts(ours, theirs, members.differing)) if text else {}
        return _Difference(members=members, words=words, texts=texts)


def _compare_texts(
    left: Archive, right: Archive, names: Iterable[str]
) -> Iterator[tuple[str, str]]:
    from hatch_mar.archive.compare import read_text  # noqa: PLC0415 - see hatch_mar.cli

    for name in names:
        before, after = read_text(left, name), read_text(right, name)
        if before is None or after is None:
            continue
        lines = difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            f"left/{name}",
            f"right/{name}",
        )
        whole = (
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            for line in lines
        )
        if text := "".join(whole):
            yield name, text


def _describe(found: _Difference) -> dict[str, Any]:
    members = found.members
    return {
        "same": found.same,
        "members": {
            "onlyLeft": [_member(name, members.left[name]) for name in members.only_left],
            "onlyRight": [_member(name, members.right[name]) for name in members.only_right],
            "changed": [
                {"name": name, "left": _digest(left), "right": _digest(right)}
                | ({"diff": found.texts[name]} if name in found.texts else {})
                for name, (left, right) in members.differing.items()
            ],
        },
        **{
            section: [{"key": each.key, **_redacted(each.sides)} for each in changes]
            for section, changes in found.words.items()
        },
    }


def _member(name: str, digest: Digest) -> dict[str, Any]:
    return {"name": name, **_digest(digest)}


def _digest(digest: Digest) -> dict[str, Any]:
    return asdict(digest)


def _redacted(sides: Mapping[str, Any]) -> dict[str, Any]:
    return {side: _redact(value) for side, value in sides.items()}


def _redact(value: Any) -> Any:  # noqa: ANN401 - whatever YAML and JSON hold
    """Return `value` without the secrets that URLs may hold."""
    from hatch_mar.weights.uri import redact  # noqa: PLC0415 - see hatch_mar.cli

    if isinstance(value, str):
        return redact(value) if "://" in value else value
    if isinstance(value, list):
        return [_redact(each) for each in value]
    return value


def _render(found: _Difference, left: str, right: str) -> Iterator[str]:
    if found.same:
        return
    yield f"- {visible(left)}"
    yield f"+ {visible(right)}"
    members = found.members
    if not members.same:
        yield ""
        yield "members"
        yield from columns(_rows(members), indent="", right=(2,))
    for section, changes in found.words.items():
        if changes:
            yield ""
            yield "model-config.yaml" if section == "config" else section
            for change in changes:
                for side, value in _redacted(change.sides).items():
                    sign = "-" if side == "left" else "+"
                    yield f"{sign} {visible(change.key)}: {visible(repr(value))}"
    for text in found.texts.values():
        yield ""
        for line in text.splitlines():
            yield "\t".join(map(visible, line.split("\t")))


def _rows(members: Comparison) -> Iterator[tuple[str, str, str, str]]:
    rows = [
        *(("-", name, members.left[name]) for name in members.only_left),
        *(("+", name, members.right[name]) for name in members.only_right),
    ]
    for name, (left, right) in members.differing.items():
        rows += [("-", name, left), ("+", name, right)]
    for sign, name, digest in sorted(rows, key=lambda row: row[1]):
        from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

        program = " (program)" if digest.executable else ""
        yield sign, shorten(digest.sha256), render_size(digest.size), f"{visible(name)}{program}"
