"""`hatch-mar plan`: what a build would make, and why, without making it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hatch_mar.cli.output import columns, emit, json_option, say, told_as_json, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hatch_mar.archive.plan import Plan
    from hatch_mar.plugin.entry_points import Entry
    from hatch_mar.project.spec import MarSpec

OUTLINE = "  "


@click.command()
@click.argument("target", default=".")
@json_option
def command(target: str, *, as_json: bool) -> None:
    """Show what a build of the project TARGET would make, and why.

    TARGET is the current directory unless given. None of its code is imported, and nothing is
    written.
    """
    from hatch_mar.cli.authored import find_project, read_project  # noqa: PLC0415 - see cli
    from hatch_mar.project.planning import make_plan  # noqa: PLC0415

    with told_as_json(target, as_json=as_json):
        root = find_project(target)
        spec = read_project(root)
        plan = make_plan(spec)
        document = describe(spec, plan)
    if as_json:
        emit(document)
        return
    for line in _render(spec, plan, document):
        say(line)


def describe(spec: MarSpec, plan: Plan) -> dict[str, Any]:
    """Return everything that a build would decide, as JSON can say it."""
    wheel = _find_wheel(spec, plan)
    return {
        "name": spec.name,
        "version": spec.version,
        "description": spec.description,
        "package": spec.package,
        "script": spec.script,
        "handler": {"manifest": spec.handler.manifest, "found": spec.handler.found},
        "runtime": {"name": spec.runtime, "reason": spec.runtime_reason},
        "flowchart": dict(_flowchart(spec)),
        "archive": {
            "filename": plan.filename,
            "format": plan.format,
            "compression": plan.compression,
            "enabled": spec.archive.enabled,
        },
        "wheel": wheel,
        "manifest": plan.manifest.as_dict(),
        "members": [{"name": each.name, "size": each.size()} for each in plan.sealed_members()],
        "tarball": [entry.name for entry in spec.tarball_entries],
        "references": [reference.as_dict() for reference in spec.references],
        "examples": [example.as_dict() for example in spec.examples],
        "config": dict(spec.config),
        "notes": list(spec.notes),
        "problems": [],
    }


def _find_wheel(spec: MarSpec, plan: Plan) -> dict[str, Any]:
    from hatch_mar.plugin.entry_points import wanted_entries  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.plugin.tag import choose_tag  # noqa: PLC0415

    tag = choose_tag(spec, plan)
    entries = wanted_entries(name=spec.name, package=spec.package, script=spec.script)
    return {
        "package": spec.package,
        "tag": tag.text,
        "machine_code": tag.because or None,
        "entry_points": [_describe_entry(entry) for entry in entries],
    }


def _describe_entry(entry: Entry) -> dict[str, str]:
    return {"group": entry.group, "name": entry.name, "target": entry.target}


def _flowchart(spec: MarSpec) -> Iterator[tuple[str, str]]:
    """Yield the questions on the way to the runtime, and their answers."""
    whose = {"own": "its own", "inherited": "BaseHandler's", "unknown": "nobody can see whose"}
    initialize = (
        "handler_factory's" if spec.handler.kind == "factory" else whose[spec.handler.initialize]
    )
    yield "handler", f"{spec.handler.manifest}  ({spec.handler.found})"
    yield "initialize", initialize
    yield "model file", spec.model_file or "none"
    primary = next((file for file in spec.weights if file.primary), None)
    if primary is None:
        yield "weights", "none"
    else:
        place = "in the archive" if primary.reference is None else "by reference"
        why = f"  ({primary.reason})" if primary.reason else ""
        yield "weights", f"{primary.target}, {place}{why}"
    yield "runtime", f"{spec.runtime}  ({spec.runtime_reason})"


def _render(spec: MarSpec, plan: Plan, document: dict[str, Any]) -> Iterator[str]:
    yield f"{spec.name} {spec.version}{': ' if spec.description else ''}{visible(spec.description)}"
    yield from _section("how it is loaded", columns(document["flowchart"].items(), indent="    "))
    yield from _section(_title(spec, plan), _members(spec, plan))
    yield from _section("wheel", _wheel(document["wheel"]))
    yield from _section("by reference", _references(spec))
    yield from _section("golden examples", _examples(spec))
    yield from _section("serving", _serving(spec))
    yield from _section("notes", [f"    {visible(note)}" for note in spec.notes])


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield ""
        yield f"{OUTLINE}{title}"
        yield from found


def _title(spec: MarSpec, plan: Plan) -> str:
    how = f"{plan.format}, {plan.compression}" if plan.format == "mar" else plan.format
    left_out = "" if spec.archive.enabled else "; left out of wheel builds: archive.enabled"
    return f"archive  {plan.filename}  ({how}{left_out})"


def _members(spec: MarSpec, plan: Plan) -> Iterator[str]:
    from hatch_mar.archive.seal import SEAL_NAME  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.cli.tree import tree  # noqa: PLC0415
    from hatch_mar.weights.size import render_size  # noqa: PLC0415

    weights = {file.target for file in spec.weights}
    rows = [
        (each.name, render_size(each.size()), "weights" if each.name in weights else "")
        for each in plan.sealed_members()
        if each.name != spec.tarball
    ]
    rows.append((SEAL_NAME, "", "the digest of every member"))
    for each in plan.members:
        if each.name == spec.tarball:
            rows.append((each.name, render_size(each.size()), "system.extraFiles, made of:"))
            rows += [(f"{each.name}/{entry.name}", "", "") for entry in spec.tarball_entries]
    yield from tree(rows, indent="    ")
    members = list(plan.sealed_members())
    total = render_size(sum(each.size() for each in members))
    yield f"    {len(members) + 1} members, {total}"


def _wheel(wheel: dict[str, Any]) -> Iterator[str]:
    rows = [("package", f"{wheel['package']}/model/", "the same members, unpacked")]
    rows += [
        ("entry point", f"{entry['name']} = {entry['target']}", f"[{entry['group']}]")
        for entry in wheel["entry_points"]
    ]
    because = wheel["machine_code"]
    rows.append(("tag", wheel["tag"], f"for {because}, machine code" if because else ""))
    yield from columns(rows, indent="    ")


def _references(spec: MarSpec) -> Iterator[str]:
    from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

    rows = [
        (
            each.target,
            "" if each.size is None else render_size(each.size),
            f"sha256 {each.sha256[:12]}",
            visible(each.source),
        )
        for each in spec.references
    ]
    return columns(rows, indent="    ", right=(1,)) if rows else iter(())


def _examples(spec: MarSpec) -> Iterator[str]:
    rows = [
        (
            each.input.rpartition("/")[2],
            f"-> {each.output.rpartition('/')[2]}",
            each.content_type,
            f"rtol {each.rtol:g}, atol {each.atol:g}" + (", warn" if each.policy == "warn" else ""),
        )
        for each in spec.examples
    ]
    return columns(rows, indent="    ") if rows else iter(())


def _serving(spec: MarSpec) -> Iterator[str]:
    known = {key: value for key, value in spec.config.items() if not isinstance(value, dict)}
    rows = [(key, visible(str(value))) for key, value in known.items()]
    return columns(rows, indent="    ") if rows else iter(())
