"""The tables of the reference, made from the code they describe: a hook of mkdocs.

A page says `<!-- generated: NAME -->` where the text of the function NAME goes.
"""  # noqa: INP001 - mkdocs loads this file by its path

from __future__ import annotations

import inspect
import json
import re
import textwrap
from typing import TYPE_CHECKING, Any, get_args

import click

from hatch_mar import errors
from hatch_mar.archive.configkeys import (
    COMPILE_BACKENDS,
    FRONTEND_KEYS,
    SYSTEM_KEYS,
    TORCHRUN_KEYS,
)
from hatch_mar.archive.cudakeys import CUDA_KEYS
from hatch_mar.cli import SUBCOMMANDS, program
from hatch_mar.project.matrix import MODELS, WAYS, Place, Way
from hatch_mar.project.runtime import ROWS, SUFFIXES
from hatch_mar.project.schema import tool_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hatch_mar.archive.configkeys import Key

Schema = dict[str, Any]
MARKER = re.compile(r"<!-- generated: (\w+) -->")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill in the markers of one page."""
    return MARKER.sub(lambda match: GENERATORS[match[1]](), markdown)


def tool_mar() -> str:
    """Return a section for `[tool.mar]` and one for each table in it, as the schema has them."""
    return "\n".join(_sections("tool.mar", tool_schema()))


def _sections(path: str, table: Schema) -> Iterator[str]:
    yield f"### `{path}`\n"
    yield "| key | type | default | |\n|---|---|---|---|"
    inner: list[tuple[str, Schema]] = []
    for key, field in table["properties"].items():
        default = "required" if key in table.get("required", ()) else _default(field)
        yield f"| `{key}` | {_type_of(field)} | {default} | {_cell(field['description'])} |"
        inner += [(f"{path}.{key}", each) for each in _tables_in(field)]
    yield ""
    for inner_path, each in inner:
        yield from _sections(inner_path, each)


def _tables_in(field: Schema) -> list[Schema]:
    """Return the table that a field is or holds, once: `weights` may be one or an array of them."""
    if field.get("additionalProperties") is False:
        return [field]
    parts = [*field.get("anyOf", ()), *([field["items"]] if "items" in field else ())]
    return [table for part in parts for table in _tables_in(part)][:1]


def _type_of(field: Schema) -> str:
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(map(_type_of, field["anyOf"])))
    if "enum" in field:
        return ", ".join(f'`"{choice}"`' for choice in field["enum"])
    kind = {"object": "table"}.get(field["type"], field["type"])
    return f"array of {_type_of(field['items'])}" if kind == "array" else str(kind)


def _default(field: Schema) -> str:
    return f"`{json.dumps(field['default'])}`" if "default" in field else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def flowchart() -> str:
    """Return the rows by which `runtime = "auto"` decides, and what each runtime can load."""
    lines = ["| weights end in | model file | runtime |", "|---|---|---|"]
    for row in ROWS:
        endings = ", ".join(f"`{each}`" if each else "no weights" for each in row.suffixes)
        lines.append(f"| {endings} | {'yes' if row.model_file else 'no'} | `{row.runtime}` |")
    lines += ["", "| where the author says | the weights may end in |", "|---|---|"]
    for runtime, suffixes in SUFFIXES.items():
        endings = ", ".join(f"`{each}`" for each in suffixes if each)
        lines.append(f"| `{runtime}` | {endings} |")
    return "\n".join(lines)


def model_config() -> str:
    """Return the table of the keys that decide how a model is served."""
    return "\n".join(_keys(FRONTEND_KEYS))


def system_keys() -> str:
    """Return the rows of the section `system`, short of `extraFiles`."""
    return "\n".join(_keys(SYSTEM_KEYS))


def cuda_keys() -> str:
    """Return the keys of the section `cuda`."""
    return "\n".join(_keys(CUDA_KEYS))


def _keys(keys: Iterable[Key]) -> Iterator[str]:
    yield "| key | type | unless set | |\n|---|---|---|---|"
    for key in keys:
        kind = {"integers": "list of integers", "sizes": "`true`, or list of integers"}.get(
            key.kind, key.kind
        )
        choices = [f"`{choice}`" for choice in key.choices if choice]
        least = f", at least {key.least}" if key.kind == "integer" else ""
        note = (
            " Read and shown, but this runner does nothing with it yet." if key.shown_only else ""
        )
        yield (
            f"| `{key.name}` | {', '.join(choices) or kind + least} | {key.unless_set} | "
            f"{_cell(key.meaning)}{note} |"
        )


def torchrun() -> str:
    """Return the keys of `torchrun`."""
    return ", ".join(f"`{name}` ({kind})" for name, kind in TORCHRUN_KEYS.items())


def backends() -> str:
    """Return the backends of torch.compile that TorchServe knows."""
    return ", ".join(f"`{backend}`" for backend in COMPILE_BACKENDS)


def commands() -> str:
    """Return what `--help` says, for each subcommand."""
    return "\n\n".join(_help(name) for name in SUBCOMMANDS)


def _help(name: str) -> str:
    parent = click.Context(program, info_name="hatch-mar")
    command = program.get_command(parent, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent, max_content_width=88)
    texts = "\n\n".join(_help_texts(command, context))
    return f"## hatch-mar {name}\n\n```text\n{texts}\n```"


def _help_texts(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the help of a command, and of each of its own if it is a group."""
    yield command.get_help(context)
    for name, each in getattr(command, "commands", {}).items():
        inner = click.Context(each, info_name=name, parent=context, max_content_width=88)
        yield each.get_help(inner)


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
    "flowchart": flowchart,
    "model_config": model_config,
    "system_keys": system_keys,
    "cuda_keys": cuda_keys,
    "torchrun": torchrun,
    "backends": backends,
}
