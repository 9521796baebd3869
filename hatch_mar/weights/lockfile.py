"""`mar.lock`: what the weights that a project refers to were when `hatch-mar lock` looked at them.

TOML, for people who review changes of it: one key a line, files sorted by target, nothing that
differs between two runs that found the same. The reader takes what the writer writes, and says of
everything else what is wrong with it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hatch_mar.archive.names import find_flaw as find_name_flaw
from hatch_mar.errors import Problem, ProblemsError
from hatch_mar.weights.digest import is_sha256
from hatch_mar.weights.uri import find_flaw as find_source_flaw
from hatch_mar.weights.uri import redact

if TYPE_CHECKING:
    from pathlib import Path

LOCK_NAME = "mar.lock"
LOCK_VERSION = 1
COMMAND = "hatch-mar lock"
HEADER = f"""\
# The weights that [tool.mar] refers to, and which bytes they are.
# Written by `{COMMAND}`: commit this file, and change it with that command alone.
version = {LOCK_VERSION}
"""
_START_AGAIN = f"restore it, or remove it and run `{COMMAND}`"
_TEXTS = ("target", "source", "resolved", "sha256")
_LISTS = ("mirrors", "names")
_KEYS = {*_TEXTS, *_LISTS, "size"}
_CONFLICT = re.compile(r"^(?:<{7} .*|={7}\r?|>{7} .*)$", re.MULTILINE)
"""The lines that git leaves where two changes meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedFile:
    """One file: what the author wrote, and what that was."""

    target: str
    """Path in the model directory (POSIX, relative)."""
    source: str
    """As the author wrote it: a URI, an absolute path, or a path in the project."""
    resolved: str
    """Where the same bytes will be tomorrow, as far as the store can say that."""
    size: int
    """Bytes."""
    sha256: str
    """64 lower-case hex digits."""
    mirrors: tuple[str, ...] = ()
    """As the author wrote them."""
    names: tuple[str, ...] = ()
    """Targets of the files that this one names (the index of shards, ONNX with external data), each
    of which has an entry of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The whole file."""

    files: tuple[LockedFile, ...] = ()

    def find(self, target: str) -> LockedFile | None:
        """Return the entry of `target`, if there is one."""
        return next((file for file in self.files if file.target == target), None)

    def named_by(self, file: LockedFile) -> Iterator[LockedFile]:
        """Yield the entries of the files that `file` names, as far as they are there."""
        for target in file.names:
            found = self.find(target)
            if found is not None:
                yield found


def render_lock(lock: Lock) -> str:
    """Return the file's text: the same lock is the same text."""
    files = sorted(lock.files, key=lambda file: file.target)
    return "\n".join([HEADER, *map(_render_file, files)])


def _render_file(file: LockedFile) -> str:
    lines = ["[[weights]]"]
    lines += [f"{key} = {_quote(getattr(file, key))}" for key in _TEXTS[:3]]
    lines += [f"size = {file.size}", f"sha256 = {_quote(file.sha256)}"]
    for key in _LISTS:
        values = getattr(file, key)
        if values:
            lines += [f"{key} = [", *(f"    {_quote(value)}," for value in values), "]"]
    return "".join(f"{line}\n" for line in lines)


def _quote(text: str) -> str:
    """Return a basic string of TOML, which escapes as JSON does, and DEL (TOML 1.0, "String")."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_lock(path: Path) -> Lock:
    """Return the lock in the file at `path`; an empty one if there is no file.

    Raises:
        ProblemsError: everything that is wrong with it.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return Lock()
    except OSError as error:
        raise _broken(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise _broken(path, f"is not UTF-8: {error}; {_START_AGAIN}") from error
    return parse_lock(text, path.name)


def parse_lock(text: str, name: str = LOCK_NAME) -> Lock:
    """Return the lock that `text` says; `name` is the file that problems are about.

    Raises:
        ProblemsError: everything that is wrong with it.
    """
    if _CONFLICT.search(text):
        message = f"holds the marks of a merge conflict; keep either side, and run `{COMMAND}`"
        raise ProblemsError([Problem(name, "", message)])
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"is not TOML: {error}; {_START_AGAIN}"
        raise ProblemsError([Problem(name, "", message)]) from error
    _check_version(raw, name)
    problems = [Problem(name, key, message) for key, message in _flaws(raw)]
    if problems:
        raise ProblemsError(problems)
    return Lock(files=tuple(map(_read_file, raw.get("weights", []))))


def _broken(path: Path, message: str) -> ProblemsError:
    return ProblemsError([Problem(path.name, "", message)])


def _check_version(raw: Mapping[str, Any], name: str) -> None:
    """Say no to versions other than ours before anything else: their keys may mean other things."""
    version = raw.get("version")
    if type(version) is int and version == LOCK_VERSION:
        return
    if type(version) is int and version > LOCK_VERSION:
        message = f"is {version}: this hatch-mar reads {LOCK_VERSION}; upgrade hatch-mar"
    else:
        said = "is missing" if version is None else f"is {version!r}, not {LOCK_VERSION}"
        message = f"{said}; {_START_AGAIN}"
    raise ProblemsError([Problem(name, "version", message)])


def _flaws(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the key path and the message of everything that is wrong."""
    for key in raw.keys() - {"version", "weights"}:
        yield key, f"unknown key; {_START_AGAIN}"
    files = raw.get("weights", [])
    if not isinstance(files, list):
        yield "weights", f"must be an array of tables; {_START_AGAIN}"
        return
    seen: dict[str, int] = {}
    for index, file in enumerate(files):
        where = f"weights[{index}]"
        if not isinstance(file, Mapping):
            yield where, f"must be a table; {_START_AGAIN}"
            continue
        for key, message in _flaws_of_file(file):
            yield f"{where}.{key}", message
        target = file.get("target")
        if isinstance(target, str) and seen.setdefault(target, index) != index:
            yield f"{where}.target", f"'{target}' is that of weights[{seen[target]}] too; keep one"


def _flaws_of_file(file: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in sorted(file.keys() - _KEYS):
        yield key, f"unknown key; {_START_AGAIN}"
    for key in _TEXTS:
        if not isinstance(file.get(key), str):
            said = f"must be a string, not {file[key]!r}" if key in file else "is missing"
            yield key, f"{said}; {_START_AGAIN}"
    size = file.get("size")
    if type(size) is not int or size < 0:
        said = f"must be a number of bytes, not {size!r}" if "size" in file else "is missing"
        yield "size", f"{said}; {_START_AGAIN}"
    for key in _LISTS:
        values = file.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            yield key, f"must be an array of strings, not {values!r}; {_START_AGAIN}"
    yield from _flaws_of_values(file)


def _flaws_of_values(file: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    target, resolved, sha256 = (file.get(key) for key in ("target", "resolved", "sha256"))
    if isinstance(target, str) and (flaw := find_name_flaw(target)) is not None:
        yield "target", f"'{target}' {flaw}; {_START_AGAIN}"
    if isinstance(resolved, str) and (flaw := find_source_flaw(resolved)) is not None:
        yield "resolved", f"'{redact(resolved)}' {flaw}; {_START_AGAIN}"
    names, mirrors = file.get("names"), file.get("mirrors")
    if isinstance(names, list) and target in names:
        yield "names", f"names itself; {_START_AGAIN}"
    for mirror in mirrors if isinstance(mirrors, list) else ():
        if isinstance(mirror, str) and (flaw := find_source_flaw(mirror)) is not None:
            yield "mirrors", f"'{redact(mirror)}' {flaw}; {_START_AGAIN}"
    if isinstance(sha256, str) and not is_sha256(sha256):
        yield "sha256", f"'{sha256}' is not a sha256: 64 lower-case hex digits; {_START_AGAIN}"


def _read_file(raw: Mapping[str, Any]) -> LockedFile:
    return LockedFile(
        target=raw["target"],
        source=raw["source"],
        resolved=raw["resolved"],
        size=raw["size"],
        sha256=raw["sha256"],
        mirrors=tuple(raw.get("mirrors", ())),
        names=tuple(raw.get("names", ())),
    )
