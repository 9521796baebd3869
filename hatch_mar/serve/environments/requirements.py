"""What a model's requirements.txt asks for, and what of it is not in the runner's environment."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.archive.requirements import logical_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from importlib.metadata import Distribution

    from packaging.requirements import Requirement

_INCLUDE = re.compile(r"(?:-r|--requirement)[\s=]*(?P<file>\S+)")
_OPTIONS = re.compile(r"\s--")
"""Where the options of a requirement begin, such as its hashes."""


@dataclass(frozen=True, slots=True)
class Missing:
    """One requirement that an environment does not meet."""

    wanted: str
    """Without a marker, and without a URL, which may hold a secret: `numpy>=2`."""
    installed: str | None = None
    """The version that is there instead."""

    def __str__(self) -> str:
        """Say what is there instead: `numpy>=2 (1.26.4 is installed)`."""
        have = f"{self.installed} is installed" if self.installed else "not installed"
        return f"{self.wanted} ({have})"


@dataclass(frozen=True, slots=True)
class RequirementsFile:
    """A model's requirements file, with those of its own that it includes."""

    name: str
    lines: tuple[str, ...]
    """Those that mean something, in order, without the includes."""
    files: tuple[Path, ...]
    """Every file that was read, and every other one of the model's that a line names."""

    @property
    def is_opaque(self) -> bool:
        """Whether it asks for something that only an installer can tell to be there or not."""
        return any(not line.startswith("-") and _parse(line) is None for line in self.lines)

    def find_missing(self) -> list[Missing]:
        """Return what of it is not in this environment."""
        return list(find_missing(self.lines))


def read_requirements(directory: Path, name: str) -> RequirementsFile | None:
    """Read the file `name` in a model's `directory`; None if there is none that can be read."""
    files: list[Path] = []
    try:
        lines = tuple(_read(directory, directory / name, files))
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        for word in re.split(r"[\s=]+", line):
            path = directory / word.removeprefix("file:")
            if path.is_file() and path not in files:
                files.append(path)
    return RequirementsFile(name, lines, tuple(files))


def _read(directory: Path, path: Path, files: list[Path]) -> Iterator[str]:
    if path in files:
        return
    files.append(path)
    for _, line in logical_lines(path.read_bytes()):
        found = _INCLUDE.fullmatch(line)
        other = Path(os.path.normpath(path.parent / found["file"])) if found else path
        if found and other.is_relative_to(directory) and other.is_file():
            yield from _read(directory, other, files)
        else:
            yield line


def find_missing(lines: Iterable[str], path: Sequence[str] | None = None) -> Iterator[Missing]:
    """Yield what of `lines` is not installed where `path` leads, by default in this environment.

    Markers are honoured, and the requirements of the extras that are asked for. Options and lines
    without a name are passed over.
    """
    for line in lines:
        wanted = None if line.startswith("-") else _parse(line)
        if wanted is not None and concerns_us(wanted):
            yield from find_unmet(wanted, path)


def concerns_us(wanted: Requirement, extras: Iterable[str] = ()) -> bool:
    """Say whether a requirement is one on this machine, of a package with these `extras`."""
    marker = wanted.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def find_unmet(wanted: Requirement, path: Sequence[str] | None = None) -> Iterator[Missing]:
    """Yield `wanted` if it is not installed, or what one of its extras needs and is not."""
    shown = f"{wanted.name}{_extras(wanted)}{wanted.specifier}"
    found = find_distribution(wanted.name, path)
    if found is None:
        yield Missing(shown)
        return
    if not wanted.specifier.contains(found.version, prereleases=True):
        yield Missing(shown, found.version)
        return
    for line in (found.requires or ()) if wanted.extras else ():
        inner = _parse(line)
        if (
            inner is not None
            and not concerns_us(inner)
            and concerns_us(inner, wanted.extras)
            and inner.name != found.name
        ):
            yield from find_unmet(inner, path)


def find_distribution(name: str, path: Sequence[str] | None = None) -> Distribution | None:
    """Return the installed distribution `name` that an import would take."""
    import importlib.metadata  # noqa: PLC0415 - few models ask for anything

    try:
        if path is None:
            return importlib.metadata.distribution(name)
        return next(iter(importlib.metadata.distributions(name=name, path=list(path))), None)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def _parse(line: str) -> Requirement | None:
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415 - few need it

    try:
        return Requirement(_OPTIONS.split(line, maxsplit=1)[0])
    except InvalidRequirement:
        return None


def _extras(wanted: Requirement) -> str:
    return f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
