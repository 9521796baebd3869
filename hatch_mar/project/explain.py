"""Where every value came from: `hatch-mar check --explain`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from hatch_mar.project.config import CONVENTIONAL, Config
from hatch_mar.project.document import PYPROJECT, KeyPath, render
from hatch_mar.project.handler import CONVENTIONAL as CONVENTIONAL_HANDLER
from hatch_mar.project.serve_keys import CUDA_KEYS, SERVE_KEYS, SYSTEM_KEYS
from hatch_mar.project.spec import Setting

if TYPE_CHECKING:
    from hatch_mar.project.identity import Identity
    from hatch_mar.project.reading import Reading

OURS = "hatch-mar, for this archive"
IN_THE_FILE = ("serve", "system")
"""Tables that end up in model-config.yaml, where they are listed with the file's own keys."""


def explain(reading: Reading, identity: Identity, config: Config) -> tuple[Setting, ...]:
    """Return every setting, in the table's order, and then those of model-config.yaml."""
    written = dict(reading.document.leaves())
    found = []
    for key, value in _fields(reading.table):
        if key[0] in IN_THE_FILE:
            continue
        if key in written or key[:1] in written:
            path = key if key in written else key[:1]
            found.append(Setting(render(key), written[path], str(reading.origin(path))))
        else:
            found.append(_unwritten(reading, identity, config, render(key), value))
    return (*found, *_of_the_file(reading, config))


def _fields(table: BaseModel, prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        key = (*prefix, str(field.alias))
        if isinstance(value, BaseModel) and not prefix:
            yield from _fields(value, key)
        else:
            yield key, value


def _unwritten(
    reading: Reading, identity: Identity, config: Config, key: str, value: object
) -> Setting:
    """Explain a value that nobody wrote under its key."""
    if key in ("name", "version", "description"):
        known = getattr(identity, key)
        return Setting(key, known, f"{PYPROJECT}: project.{key}" if known else "default")
    if key == "handler":
        return Setting(key, CONVENTIONAL_HANDLER, f"{CONVENTIONAL_HANDLER} exists")
    if key == "config" and config.path is not None:
        return Setting(key, reading.relative(config.path), f"{CONVENTIONAL} exists")
    return Setting(key, value, "default")


def _of_the_file(reading: Reading, config: Config) -> Iterator[Setting]:
    spelling = {name: key for key, name in SERVE_KEYS.items()}
    sections = {
        "system": ("system", {name: key for key, name in SYSTEM_KEYS.items()}),
        "cuda": ("serve.cuda", {name: key for key, name in CUDA_KEYS.items()}),
    }
    for name, value in config.values.items():
        if name in sections and isinstance(value, Mapping):
            table, spelling_there = sections[name]
            for inner, leaf in value.items():
                key = f"{table}.{spelling_there.get(inner, inner)}"
                yield Setting(key, leaf, _origin(reading, config, (name, inner)))
        else:
            key = f"serve.{spelling.get(name, name)}"
            yield Setting(key, value, _origin(reading, config, (name,)))


def _origin(reading: Reading, config: Config, key: KeyPath) -> str:
    if key in config.placed:
        return str(reading.origin(config.placed[key]))
    there: Any = config.written
    for step in key:
        there = there.get(step) if isinstance(there, Mapping) else None
    if there is None or config.path is None:
        return OURS
    return f"{reading.relative(config.path)}: {render(key)}"
