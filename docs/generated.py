"""The tables of the reference, made from the code they describe: a hook of mkdocs.

A page says `<!-- generated: NAME -->` where the text of the function NAME goes.
"""  # noqa: INP001 - mkdocs loads this file by its path

from __future__ import annotations

import inspect
import re
import textwrap
import types
import typing
from typing import TYPE_CHECKING, Literal, get_args, get_origin

import click
from pydantic import BaseModel

from hatch_mar import errors
from hatch_mar.cli import SUBCOMMANDS, program
from hatch_mar.project.matrix import MODELS, WAYS, Place, Way
from hatch_mar.project.table import MarTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

MARKER = re.compile(r"<!-- generated: (\w+) -->")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill in the markers of one page."""
    return MARKER.sub(lambda match: GENERATORS[match[1]](), markdown)


def tool_mar() -> str:
    """Return a section for `[tool.mar]` and one for each table in it."""
    return "\n".join(_sections("tool.mar", MarTable))


def _sections(path: str, table: type[BaseModel]) -> Iterator[str]:
    yield f"### `{path}`\n"
    yield "| key | type | default | |\n|---|---|---|---|"
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in table.model_fields.items():
        key = field.alias or name.replace("_", "-")
        yield f"| `{key}` | {_type_of(field.annotation)} | {_default(field)} | {_text(field)} |"
        inner += [(f"{path}.{key}", model) for model in _tables_in(field.annotation)]
    yield ""
    for inner_path, model in inner:
        yield from _sections(inner_path, model)


def _tables_in(annotation: object) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _tables_in(argument)


def _type_of(annotation: object) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f'`"{choice}"`' for choice in get_args(annotation))
    if origin in {types.UnionType, typing.Union}:
        chosen = [inner for inner in get_args(annotation) if inner is not type(None)]
        return " or ".join(map(_type_of, chosen))
    if origin is typing.Annotated:
        return _type_of(get_args(annotation)[0])
    if origin is list:
        return f"array of {_type_of(get_args(annotation)[0])}"
    if origin is dict or (inspect.isclass(annotation) and issubclass(annotation, BaseModel)):
        return "table"
    names: dict[object, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
    return names.get(annotation, "any")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None or isinstance(default, BaseModel):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else repr(default)}`".replace(
        "'", '"'
    )


def _text(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).replace("|", "\\|")


def commands() -> str:
    """Return what `--help` says, for each subcommand."""
    return "\n\n".join(_help(name) for name in SUBCOMMANDS)


def _help(name: str) -> str:
    parent = click.Context(program, info_name="hatch-mar")
    command = program.get_command(parent, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent, max_content_width=88)
    return f"## hatch-mar {name}\n\n```text\n{command.get_help(context)}\n```"


def error_tree() -> str:
    """Return the tree of errors with their exit codes and HTTP statuses."""
    docstring = inspect.getdoc(errors) or ""
    tree = re.search(r"(?m)^ *HatchMarError .*(?:\n(?: .*)?)*?(?=\n\S)", docstring)
    assert tree is not None
    return f"```text\n{textwrap.dedent(tree[0])}\n```"


def matrix() -> str:
    """Return the table of what runs where, and below it what stands in TorchServe's way."""
    reasons = list(dict.fromkeys(reason for way in WAYS for reason in _reasons(way)))
    lines = ["| | in the archive | at a path | by reference |", "|---|---|---|---|"]
    for model, title in MODELS.items():
        ways = {way.weights: way for way in WAYS if way.model == model}
        cells = (_where(ways[place], reasons) for place in get_args(Place))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{n}. {reason}." for n, reason in enumerate(reasons, 1))])


def _reasons(way: Way) -> tuple[str, ...]:
    return (*way.obstacles, way.setting) if way.setting else way.obstacles


def _where(way: Way, reasons: list[str]) -> str:
    numbers = ", ".join(str(reasons.index(reason) + 1) for reason in _reasons(way))
    if way.obstacles:
        return f"ours only ({numbers})"
    return f"both ({numbers})" if numbers else "both"


GENERATORS = {
    "tool_mar": tool_mar,
    "commands": commands,
    "error_tree": error_tree,
    "matrix": matrix,
}
