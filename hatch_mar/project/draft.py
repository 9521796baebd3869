"""A project's tables before there is a project: what `init` and `adopt` write as pyproject.toml.

The text is TOML that a person goes on editing: one key a line, and above a key why it is there.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from hatch_mar.project.names import is_served_name
from hatch_mar.project.table import MarTable, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator

Value = str | bool | int | float | Sequence["Value"] | Mapping[str, "Value"]
"""What TOML can say of what we write."""

WIDTH = 100
FIRST_VERSION = "1.0"
RUNNER = "hatch-mar[serve]"
_PROJECT_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
"""PEP 508's rule for the name of a distribution."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Line:
    """One key of `[tool.mar]`, and why it has its value."""

    key: str
    """Below `[tool.mar]`, dotted: `archive.filename`."""
    value: Value
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What pyproject.toml will say."""

    project: str
    """Name of the distribution."""
    version: str
    served: str
    """The name that the model is served under."""
    description: str = ""
    readme: str = ""
    dependencies: tuple[str, ...] = (RUNNER, "torch")
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    """What no key can hold: choices and losses, for the head of `[tool.mar]`."""
    tail: str = ""
    """Further tables, as TOML."""

    def to_toml(self) -> str:
        """Return the whole of pyproject.toml."""
        return "\n".join([*self._lines(), *([self.tail.strip(), ""] if self.tail else [])])

    def _lines(self) -> Iterator[str]:
        yield "[build-system]"
        yield 'requires = ["hatchling", "hatch-mar"]'
        yield 'build-backend = "hatchling.build"'
        yield ""
        yield "[project]"
        yield f"name = {to_toml(self.project)}"
        yield f"version = {to_toml(self.version)}"
        if self.description:
            yield f"description = {to_toml(self.description)}"
        if self.readme:
            yield f"readme = {to_toml(self.readme)}"
        yield 'requires-python = ">=3.11"'
        yield from _assign("dependencies", list(self.dependencies))
        yield f'dynamic = ["scripts", "entry-points"] # serve-{self.served} comes from the hook'
        yield ""
        yield "[tool.hatch.build.hooks.mar] # hatchling runs a hook only if its table exists"
        yield ""
        yield "[tool.mar]"
        for note in self.notes:
            yield from _comment(note)
        for line in self.lines:
            yield from _comment(line.why)
            yield from _assign(line.key, line.value)
        yield ""


def draft_name(wanted: str) -> tuple[str, str, list[str]]:
    """Return the project's name and the served name for a model called `wanted`, with the reasons.

    A distribution's name and a served name have different rules; each bends as little as it can.
    """
    served = wanted if is_served_name(wanted) else re.sub(r"[^A-Za-z0-9_.-]+", "-", wanted)
    if not is_served_name(served):
        served = f"model-{served.lstrip('-._')}".rstrip("-") if served else "model"
    project = served
    if not _PROJECT_NAME.fullmatch(project):
        project = re.sub(r"[^A-Za-z0-9]+$", "", project)
    notes = []
    if served != wanted:
        notes.append(
            f"'{wanted}' cannot be a served name here, which begins with a letter and holds only "
            f"letters, digits, '_', '.' and '-': clients will ask for '{served}'"
        )
    return project, served, notes


def draft_version(wanted: str) -> tuple[str, str | None]:
    """Return the project's version, and the served one where that has to differ from it."""
    try:
        version = str(Version(wanted))
    except InvalidVersion:
        return FIRST_VERSION, wanted
    return version, None if version == wanted else wanted


def weights_line(source: str, size: int, why: str = "") -> Line:
    """Return the line for a file of weights of `size` bytes, which is embedded in any case."""
    limit = MarTable().wheel.embed_limit
    if size <= parse_size(limit):
        return Line("weights", source, why)
    big = (
        f"above {limit} a file is embedded on request only; it could stay elsewhere, too: `mirrors`"
    )
    return Line(
        "weights",
        {"source": source, "place": "embed"},
        "; ".join(each for each in (why, big) if each),
    )


def base_dependencies(weights: str | None) -> list[str]:
    """Return what a wheel with these weights needs to serve them."""
    suffix = PurePosixPath(weights or "").suffix.lower()
    if suffix == ".onnx":
        return ["hatch-mar[serve,onnx]"]
    return [RUNNER, *(["safetensors"] if suffix == ".safetensors" else []), "torch"]


def merge_dependencies(*groups: Sequence[str]) -> tuple[str, ...]:
    """Return all requirements of `groups`, sorted by name; the first to name a package wins."""
    found: dict[str, str] = {}
    for line in (line for group in groups for line in group):
        found.setdefault(_package_of(line), line)
    return tuple(found[name] for name in sorted(found))


def _package_of(line: str) -> str:
    try:
        return canonicalize_name(Requirement(line).name)
    except InvalidRequirement:
        return line


def to_toml(value: Value) -> str:
    """Return `value` as TOML on one line.

    Raises:
        ValueError: a number that is not finite, or text that is no Unicode.
    """
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        return repr(value)
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(key)} = {to_toml(each)}" for key, each in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return f"[{', '.join(map(to_toml, value))}]"


def _string(text: str) -> str:
    text.encode()  # lone surrogates are no Unicode, and so nothing TOML can say
    # A basic string of TOML escapes as JSON does, and what JSON lets through: DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _assign(key: str, value: Value) -> Iterator[str]:
    """Yield `key = value`, an array over several lines where it is too long for one."""
    dotted = ".".join(map(_key, key.split(".")))
    line = f"{dotted} = {to_toml(value)}"
    if len(line) <= WIDTH or isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        yield line
        return
    yield f"{dotted} = ["
    yield from (f"  {to_toml(each)}," for each in value)
    yield "]"


def _comment(text: str) -> Iterator[str]:
    """Yield `text` as comments. A control character in a comment is no TOML."""
    clean = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    for line in textwrap.wrap(clean, WIDTH - 2, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"
