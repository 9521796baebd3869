"""The author's settings from every place they may stand in, as one document that knows its sources.

Later layers win: `[tool.mar]`, then the build hook's own table, then `HATCH_MAR_*`. Sub-tables are
merged key by key, anything else is replaced whole.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import Problem
from hatch_mar.project.serve_keys import SERVE_KEYS
from hatch_mar.project.table import MarTable, weights_tables

if TYPE_CHECKING:
    from pathlib import Path

PYPROJECT = "pyproject.toml"
HATCH = "hatch.toml"
ENVIRONMENT = "environment"
TOOL_PREFIX = "tool.mar"
HOOK_PREFIX = "tool.hatch.build.hooks.mar"
HATCHLING_KEYS = frozenset(
    {
        "dependencies",
        "require-runtime-dependencies",
        "require-runtime-features",
        "enable-by-default",
        "path",
    }
)
"""Keys of a hook table that hatchling itself reads."""
VARIABLE_PREFIX = "HATCH_MAR_"
MERGED = frozenset({"archive", "wheel", "system", "serve", "model-args"})
NUMBERED = ("weights", "examples")
"""Arrays whose entries variables can name: `HATCH_MAR_WEIGHTS_0_SOURCE`."""
FREE_FORM = frozenset({"serve", "model-args"})
"""Tables whose keys are not ours."""

KeyPath = tuple[str | int, ...]
"""A path of kebab-case keys and indices: `("weights", 0, "source")`."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an author wrote something."""

    file: str
    key: str

    def __str__(self) -> str:
        """Render as in a `Problem`."""
        return f"{self.file}: {self.key}" if self.key else self.file


@dataclass(slots=True)
class Document:
    """The merged settings."""

    values: dict[str, Any] = field(default_factory=dict)
    _prefixes: dict[KeyPath, tuple[str, str]] = field(default_factory=dict)
    _weights: Any = None
    """`weights` as the author wrote it."""

    def origin(self, path: KeyPath) -> Origin:
        """Return where the value at `path` stands, or where it would have to."""
        for depth in range(len(path), 0, -1):
            if path[:depth] in self._prefixes:
                file, prefix = self._prefixes[path[:depth]]
                if file == ENVIRONMENT:
                    return Origin(file, prefix)
                return Origin(file, render((prefix, *self._as_written(path))))
        return Origin(PYPROJECT, render((TOOL_PREFIX, *self._as_written(path))))

    def leaves(self) -> Iterator[tuple[KeyPath, Any]]:
        """Yield every value that is set, sub-tables key by key."""
        for key, value in self.values.items():
            if key in MERGED and isinstance(value, Mapping):
                for inner, leaf in value.items():
                    yield (key, inner), leaf
            else:
                yield (key,), value

    def add(self, layer: Mapping[str, Any], *, file: str, prefix: str) -> None:
        """Lay a table over what is there."""
        for key, value in copy.deepcopy(dict(layer)).items():
            current = self.values.get(key)
            if key in MERGED and isinstance(value, Mapping):
                self.values[key] = {**(current if isinstance(current, Mapping) else {}), **value}
                self._prefixes |= {(key, inner): (file, prefix) for inner in value}
                self._prefixes.setdefault((key,), (file, prefix))
                continue
            self._forget(key)
            self._prefixes[(key,)] = (file, prefix)
            if key == "weights":
                self._weights = value
                value = weights_tables(value)  # noqa: PLW2901 - one shape from here on
            self.values[key] = value

    def add_variable(self, variable: str, text: str) -> bool:
        """Lay one `HATCH_MAR_*` variable over what is there; other programs' variables pass by.

        Return False if it is ours, but names no entry of an array.
        """
        path = _variable_path(variable.removeprefix(VARIABLE_PREFIX))
        if path is None:
            return True
        if len(path) == 1:
            self.add({str(path[0]): _read_text(text)}, file=ENVIRONMENT, prefix=variable)
            return True
        container = self._container(path[:-1])
        if container is None or isinstance(container, list):
            return path[0] not in NUMBERED  # what is wrong there, validation will tell
        container[path[-1]] = read_scalar(text) if path[0] in FREE_FORM else _read_text(text)
        self._prefixes[path] = (ENVIRONMENT, variable)
        return True

    def _container(self, path: KeyPath) -> Any:  # noqa: ANN401 - a table or a list of the author's
        """Return the table at `path`, made if need be; None if something else is there."""
        value: Any = self.values
        for step in path:
            if isinstance(value, list):
                if not isinstance(step, int) or step > len(value):
                    return None
                if step == len(value):
                    value.append({})
                value = value[step]
            elif isinstance(step, int):
                return None
            else:
                value = value.setdefault(step, [] if path[0] in NUMBERED else {})
            if not isinstance(value, (dict, list)):
                return None
        return value

    def _forget(self, key: str) -> None:
        self._prefixes = {path: where for path, where in self._prefixes.items() if path[0] != key}

    def _as_written(self, path: KeyPath) -> KeyPath:
        """Undo what `weights_tables` did, so that a key path is the one the author knows."""
        if path[0] != "weights" or len(path) == 1:
            return path
        if isinstance(self._weights, str):
            return path[:1]
        if isinstance(self._weights, Mapping):
            return path[:1] + path[2:]
        entries: dict[str | int, Any] = {}
        if isinstance(self._weights, list):
            entries.update(enumerate(self._weights))
        return path[:2] if isinstance(entries.get(path[1]), str) else path


def render(path: KeyPath) -> str:
    """Render a key path: `tool.mar.weights[0].source`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def parse(text: str) -> KeyPath:
    """Undo `render`."""
    steps = re.findall(r"[^.\[\]]+", text)
    return tuple(int(step) if step.isdecimal() else step for step in steps)


def dig(table: object, *keys: str) -> Any:  # noqa: ANN401 - whatever the author put there
    """Return what lies at `keys` in nested tables, or None."""
    for key in keys:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table


def read_pyproject(root: Path, problems: list[Problem]) -> dict[str, Any]:
    """Return pyproject.toml, or what is wrong with it in `problems`."""
    pyproject = _read_toml(root, PYPROJECT, problems)
    if pyproject is None:
        problems.append(Problem(PYPROJECT, "", f"not found in '{root}'; a model is a project"))
    return pyproject or {}


def _read_toml(root: Path, name: str, problems: list[Problem]) -> dict[str, Any] | None:
    """Return what a file says, nothing if that is wrong; None if there is no such file."""
    try:
        return tomllib.loads((root / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except RecursionError:
        problems.append(Problem(name, "", "is nested too deeply to be read"))
    except OSError as error:
        problems.append(Problem(name, "", f"cannot be read: {error.strerror}"))
    except ValueError as error:  # no UTF-8, no TOML, or a number without end
        problems.append(Problem(name, "", f"cannot be read: {error}"))
    return {}


def read_document(
    root: Path,
    pyproject: Mapping[str, Any],
    hook: Mapping[str, Any],
    environ: Mapping[str, str],
    problems: list[Problem],
) -> Document:
    """Merge the layers."""
    document = Document()
    table = dig(pyproject, "tool", "mar")
    if isinstance(table, Mapping):
        document.add(table, file=PYPROJECT, prefix=TOOL_PREFIX)
    elif table is not None:
        problems.append(Problem(PYPROJECT, TOOL_PREFIX, "must be a table"))
    own = {key: value for key, value in hook.items() if key not in HATCHLING_KEYS}
    _, origin = find_hook(root, pyproject, problems)
    document.add(own, file=origin.file, prefix=origin.key)
    for variable in sorted(environ):
        if not variable.startswith(VARIABLE_PREFIX):
            continue
        text = environ[variable]
        if not _is_unicode(text):
            problems.append(Problem(ENVIRONMENT, variable, f"{text!r} is not valid UTF-8"))
        elif not document.add_variable(variable, text):
            message = "names no entry; they are numbered from 0 on: HATCH_MAR_WEIGHTS_0_SOURCE"
            problems.append(Problem(ENVIRONMENT, variable, message))
    return document


def _is_unicode(text: str) -> bool:
    """Say whether `text` holds characters only: the bytes of a variable may be anything."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def names_key(variable: str) -> bool:
    """Say whether `variable`, such as `HATCH_MAR_ARCHIVE_FORMAT`, stands for a key of ours."""
    return _variable_path(variable.removeprefix(VARIABLE_PREFIX)) is not None


def _variable_path(name: str) -> KeyPath | None:
    """Return the key path that `WEIGHTS_0_SOURCE` or `ARCHIVE_FORMAT` stands for."""
    keys = {str(field.alias) for field in MarTable.model_fields.values()}
    folded = name.lower().replace("_", "-")
    if folded in keys:
        return (folded,)
    for key in sorted(keys, key=len, reverse=True):
        rest = folded.removeprefix(f"{key}-")
        if rest == folded:
            continue
        if key == "model-args":
            return (key, rest.replace("-", "_"))
        if key in MERGED:
            return (key, rest) if key != "serve" or rest in SERVE_KEYS else None
        index, _, inner = rest.partition("-")
        if key in NUMBERED:
            return (key, int(index), inner) if index.isdecimal() and inner else (key, index, inner)
    return None


def _read_text(text: str) -> Any:  # noqa: ANN401 - as TOML has it
    """Read arrays, tables and booleans; whether `1.0` is a number, validation will tell."""
    if text.lstrip()[:1] in ("[", "{") or text in ("true", "false"):
        return read_scalar(text)
    return text


def read_scalar(text: str) -> Any:  # noqa: ANN401 - as TOML has it
    """Return what `text` means as a TOML value, or `text` itself if it means nothing there."""
    try:
        (value,) = tomllib.loads(f"value = {text}").values()
    except (ValueError, RecursionError):  # also where a line's end lets something else begin
        return text
    return value


def find_hook(
    root: Path, pyproject: Mapping[str, Any], problems: list[Problem]
) -> tuple[Mapping[str, Any] | None, Origin]:
    """Return the table of the build hook as hatchling would for a wheel, and where it stands.

    hatch.toml replaces what pyproject.toml says of a build, and the wheel's own hooks those of all
    targets (hatchling's rules). There may be no table, None; then the origin is where it belongs.
    """
    build = dig(pyproject, "tool", "hatch", "build")
    file, prefix = PYPROJECT, "tool.hatch.build"
    own = _read_toml(root, HATCH, problems) or {}
    if "build" in own:
        build, file, prefix = own["build"], HATCH, "build"
    for keys in (("targets", "wheel", "hooks", "mar"), ("hooks", "mar")):
        table = dig(build, *keys)
        if isinstance(table, Mapping):
            return table, Origin(file, render((prefix, *keys)))
    return None, Origin(PYPROJECT, HOOK_PREFIX)
