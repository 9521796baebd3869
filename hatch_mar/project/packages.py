"""Python packages of the project that travel in the archive as trees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hatch_mar.errors import Problem, ProblemsError
from hatch_mar.project.document import dig
from hatch_mar.project.reading import find_obstacle
from hatch_mar.project.spec import Entry
from hatch_mar.project.suggestion import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatch_mar.project.reading import Reading

SOURCE_FOLDERS = ("", "src")
WHEEL_PACKAGES = ("tool", "hatch", "build", "targets", "wheel", "packages")
LEFT_OUT = frozenset({"__pycache__", "__MACOSX"})
"""Folders that torch-model-archiver leaves out as well, beside hidden ones."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package: its import name and its directory."""

    name: str
    path: Path


def resolve_packages(reading: Reading) -> tuple[Package, ...]:
    """Return the packages to copy: those named, or the one that the handler lives in."""
    named = reading.table.packages
    if named is None:
        top = _handlers_package(reading.table.handler)
        found = find_package(reading, top) if top else None
        return (found,) if found else ()
    packages = []
    for key, text in reading.entries("packages", named):
        found = find_package(reading, text)
        if found is None:
            hint = did_you_mean(text, _packages_here(reading.root))
            reading.complain(key, f"there is no package '{text}'{hint}")
        else:
            packages.append(found)
    return tuple(packages)


def find_package(reading: Reading, text: str) -> Package | None:
    """Find `name` at the root, in `src/`, or where the wheel's own settings say it is."""
    declared = dig(reading.pyproject, *WHEEL_PACKAGES)
    listed = declared if isinstance(declared, list) else []
    candidates = [each for each in listed if isinstance(each, str) and _last(each) == text]
    candidates += [f"{folder}/{text}".lstrip("/") for folder in SOURCE_FOLDERS]
    for candidate in candidates:
        path = reading.root / candidate
        there = find_obstacle(path) is None and path.is_dir()
        if there and reading.is_inside(path) and any(path.glob("*.py")):
            return Package(path.name, path)
    return None


def _last(path: str) -> str:
    return PurePosixPath(path).name


def package_entries(reading: Reading, packages: tuple[Package, ...]) -> Iterator[Entry]:
    """Yield every file of `packages`, under the package's import name."""
    for package in packages:
        for path in walk(package.path):
            inner = path.relative_to(package.path).as_posix()
            if not reading.is_inside(path):
                reading.complain(
                    ("packages",), f"'{reading.relative(path)}' leads out of the project"
                )
                continue
            yield Entry(f"{package.name}/{inner}", reading.take(path), "packages")


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below `folder`, sorted, without caches and hidden ones.

    Raises:
        ProblemsError: a folder cannot be read.
    """
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise ProblemsError([Problem(str(folder), "", message)]) from error
    for path in inside:
        if path.name.startswith(".") or path.name in LEFT_OUT or path.suffix == ".pyc":
            continue
        if path.is_dir():
            if not leads_back(path) and not is_environment(path):
                yield from walk(path)
        else:
            yield path


def is_environment(folder: Path) -> bool:
    """Say whether `folder` is a virtual environment."""
    return (folder / "pyvenv.cfg").is_file()


def leads_back(folder: Path) -> bool:
    """Say whether `folder` is a link to a folder that it is in: following it would never end."""
    if not folder.is_symlink():
        return False
    try:
        return folder.parent.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to itself: Python 3.11 and 3.12 say so
        return True


def _handlers_package(handler: str | None) -> str | None:
    target, colon, _ = (handler or "").partition(":")
    return target.partition(".")[0] if colon and not target.endswith(".py") else None


def _packages_here(root: Path) -> list[str]:
    folders = [root / folder for folder in SOURCE_FOLDERS]
    return [
        path.name
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if (path / "__init__.py").is_file()
    ]
