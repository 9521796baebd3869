"""The archive's model-config.yaml: the author's file, with what `[tool.mar]` lays over it.

Where nothing is laid over it the file travels byte for byte.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hatch_mar.archive.modelconfig import check_model_config, parse_model_config
from hatch_mar.errors import Problem
from hatch_mar.project.document import Origin, render
from hatch_mar.project.serve_keys import CUDA_KEYS, SERVE_KEYS, SYSTEM_KEYS, kebab
from hatch_mar.project.spec import Entry
from hatch_mar.project.suggestion import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.project.document import KeyPath
    from hatch_mar.project.reading import Reading

CONVENTIONAL = "model-config.yaml"


@dataclass(slots=True, kw_only=True)
class Config:
    """The file in the making: resolvers add to `values` what the archive needs said."""

    path: Path | None
    """The author's file."""
    written: Mapping[str, Any]
    """What it says."""
    values: dict[str, Any]
    """What the archive's file will say."""
    placed: dict[KeyPath, KeyPath] = field(default_factory=dict)
    """Keys that come from `[tool.mar]`: key path in the file to key path in the table."""

    @property
    def section(self) -> dict[str, Any]:
        """The `system` section, or an empty one."""
        section = self.values.get("system")
        return section if isinstance(section, dict) else {}

    @property
    def model_path(self) -> str | None:
        """`handler.model_path`: where the author's handler finds weights that are elsewhere."""
        section = self.values.get("handler")
        path = section.get("model_path") if isinstance(section, dict) else None
        return path if isinstance(path, str) and path else None

    def origin_of(self, reading: Reading, key: KeyPath) -> Origin:
        """Return where the author wrote the value at `key` of the file."""
        for depth in range(len(key), 0, -1):
            if key[:depth] in self.placed:
                return reading.origin((*self.placed[key[:depth]], *key[depth:]))
        return Origin(reading.relative(self.path) if self.path else CONVENTIONAL, render(key))

    def places(self) -> Iterator[tuple[str, Path]]:
        """Yield where the author's file is in the archive, as it is or with more in it."""
        if self.path is not None:
            yield self.path.name, self.path

    def set(self, section: str, key: str, value: object) -> None:
        """Say `key: value` in a section, unless something else than a section is there."""
        table = self.values.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = value

    def entry(self) -> Entry | None:
        """Return the archive's file: the author's own bytes if they say all there is to say."""
        if self.values == self.written:
            return Entry(self.path.name, self.path, "config") if self.path and self.values else None
        name = self.path.name if self.path else CONVENTIONAL
        return Entry(name, _to_yaml(self.values), "config")


def read_config(reading: Reading) -> Config:
    """Read the author's file, lay `serve` and `system` over it, and check the result."""
    path = _find(reading)
    written = _read(reading, path) if path else {}
    config = Config(path=path, written=written, values=copy.deepcopy(dict(written)))
    for key, value, source in _overlay(reading):
        _lay(reading, config, key, value, source)
    file = reading.relative(path) if path else CONVENTIONAL
    for problem in check_model_config(config.values, file):
        reading.problems.append(_at_home(reading, config, problem))
    return config


def _find(reading: Reading) -> Path | None:
    text = reading.table.config
    if text is not None:
        return reading.find_file(("config",), text)
    path = reading.root / CONVENTIONAL
    if "config" in reading.broken or not path.is_file() or not reading.is_inside(path):
        return None
    return reading.take(path)


def _read(reading: Reading, path: Path) -> dict[str, Any]:
    """Return what the file says, complaining of what it says in no YAML."""
    values, problems = parse_model_config(path.read_bytes(), reading.relative(path))
    reading.problems.extend(problems)
    return values


def _overlay(reading: Reading) -> Iterator[tuple[KeyPath, Any, KeyPath]]:
    """Yield what `[tool.mar]` says about the file: its key path there, the value, the key here."""
    for key, value in reading.table.serve.items():
        source = ("serve", key)
        if key in SERVE_KEYS:
            yield (SERVE_KEYS[key],), value, source
        elif key == "system":
            reading.complain(source, "has a table of its own, [tool.mar.system]")
        elif kebab(key) in SERVE_KEYS:
            reading.complain(source, f"is written '{kebab(key)}' here")
        elif hint := did_you_mean(key, SERVE_KEYS, cutoff=0.8):
            reading.complain(source, f"unknown key{hint}")
        elif key == "cuda" and isinstance(value, Mapping):
            yield from _overlay_cuda(reading, value)
        else:
            yield (key,), value, source
    system = reading.table.system.model_dump(by_alias=True, exclude_none=True)
    for key, value in system.items():
        yield ("system", SYSTEM_KEYS[key]), value, ("system", key)


def _overlay_cuda(
    reading: Reading, table: Mapping[str, Any]
) -> Iterator[tuple[KeyPath, Any, KeyPath]]:
    yield ("cuda",), {}, ("serve", "cuda")
    for key, value in table.items():
        source = ("serve", "cuda", key)
        if key in CUDA_KEYS:
            yield ("cuda", CUDA_KEYS[key]), value, source
        elif kebab(key) in CUDA_KEYS:
            reading.complain(source, f"is written '{kebab(key)}' here")
        else:
            reading.complain(source, f"unknown key{did_you_mean(key, CUDA_KEYS)}")


def _lay(reading: Reading, config: Config, key: KeyPath, value: object, source: KeyPath) -> None:
    """Put one value in its place; a different one that is there already is a contradiction."""
    if not _is_sayable(value):
        reading.complain(source, f"{value!r} is nothing that YAML can say; write a string")
        return
    table: Any = config.values
    for step in key[:-1]:
        table = table.setdefault(step, {})
        if not isinstance(table, dict):
            return  # check_model_config says what is wrong with it
    last = key[-1]
    there = table.get(last)
    if isinstance(value, Mapping) and isinstance(there, dict):
        for inner, leaf in value.items():
            _lay(reading, config, (*key, inner), leaf, (*source, inner))
        return
    if last in table and (there != value or type(there) is not type(value)):
        file = reading.relative(config.path) if config.path else CONVENTIONAL
        where = ".".join(str(step) for step in key)
        reading.complain(source, f"is {value!r}, but {file} says `{where}: {there!r}`; keep one")
        return
    table[last] = copy.deepcopy(value)
    config.placed[key] = source


def _is_sayable(value: object) -> bool:
    """Say whether YAML can hold a value of TOML's: it knows no time without a date."""
    import yaml  # noqa: PLC0415 - only those who say something there pay for it

    try:
        _to_yaml(value)
    except yaml.YAMLError:
        return False
    return True


def _to_yaml(value: object) -> bytes:
    import yaml  # noqa: PLC0415 - see above

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text.encode()


def _at_home(reading: Reading, config: Config, problem: Problem) -> Problem:
    """Move a problem with the merged file to where the author wrote the value."""
    steps = tuple(problem.key.split("."))
    for depth in range(len(steps), 0, -1):
        source = config.placed.get(steps[:depth])
        if source is not None:
            origin = reading.origin(source)
            rest = "".join(f".{step}" for step in steps[depth:])
            return Problem(origin.file, f"{origin.key}{rest}", problem.message)
    return problem
