"""One reading of a project: what was set, what is wrong with it, and which files it needs."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from hatch_mar.errors import Problem
from hatch_mar.project.source import Module, SourceError, read_module
from hatch_mar.project.suggestion import nearby_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hatch_mar.project.document import Document, KeyPath, Origin
    from hatch_mar.project.pinning import Wanted
    from hatch_mar.project.table import MarTable

T = TypeVar("T")
UNREADABLE = "cannot be read: Permission denied"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(slots=True, kw_only=True)
class Reading:
    """What the rooms' resolvers share: they read the table, and add problems, notes and files."""

    root: Path
    """The project's directory, resolved."""
    pyproject: dict[str, Any]
    document: Document
    table: MarTable
    broken: frozenset[str]
    """Top-level keys that are wrong, or hold something wrong: the table is not all there is."""
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of broken arrays that have right entries: which entries of the author's the table has."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stock: list[str] = field(default_factory=list)
    """Those of the notes that say why stock TorchServe cannot serve the model as it is."""
    files: dict[Path, None] = field(default_factory=dict)
    """Files that the archive needs, in the order in which they were met."""
    wanted: list[Wanted] = field(default_factory=list)
    """The files that the archive will name, in the order in which they were met."""
    locking: bool = False
    """Whether the lock is about to be written: what it lacks is no problem then."""
    unanswered: bool = False
    """Whether the answers of golden examples may still be missing: they are about to be written."""
    _modules: dict[Path, Module | None] = field(default_factory=dict)

    @property
    def project(self) -> dict[str, Any]:
        """The table `[project]`, or an empty one."""
        table = self.pyproject.get("project")
        return table if isinstance(table, dict) else {}

    def is_dynamic(self, field: str) -> bool:
        """Say whether `[project]` leaves a field to the build."""
        dynamic = self.project.get("dynamic")
        return isinstance(dynamic, list) and field in dynamic

    def entries(self, key: str, values: Iterable[T]) -> Iterator[tuple[KeyPath, T]]:
        """Yield the entries of an array of the table, each with its place in the author's."""
        for index, value in zip(self.kept.get(key) or itertools.count(), values, strict=False):
            yield (key, index), value

    def complain(self, path: KeyPath, message: str) -> None:
        """Add a problem with the setting at `path`, unless it is known to be wrong."""
        if path[0] not in self.broken or path[0] in self.kept:
            self.complain_at(self.document.origin(path), message)

    def complain_at(self, origin: Origin, message: str) -> None:
        """Add a problem with what stands at `origin`."""
        self.problems.append(Problem(origin.file, origin.key, message))

    def complain_of_file(self, path: Path | None, key: str, message: str) -> None:
        """Add a problem with a file of the project, once."""
        problem = Problem(self.relative(path) if path else "", key, message)
        if problem not in self.problems:
            self.problems.append(problem)

    def note_stock(self, message: str) -> None:
        """Add a note that says why stock TorchServe cannot serve the model as it is."""
        self.notes.append(message)
        self.stock.append(message)

    def suggest_package(self, place: str, package: str) -> None:
        """Note that what is imported at `place` is here, and not in the archive."""
        self.notes.append(
            f"{place}: '{package}' is not in the archive, only in what pip installs; "
            f'`packages = ["{package}"]` takes it along'
        )

    def origin(self, path: KeyPath) -> Origin:
        """Return where the setting at `path` stands."""
        return self.document.origin(path)

    def find_file(self, path: KeyPath, text: str) -> Path | None:
        """Return the file that `text`, the setting at `path`, names; None after complaining.

        The archive needs it: an sdist will hold it.
        """
        found = self.locate(path, text)
        return None if found is None else self.take(found)

    def locate(self, path: KeyPath, text: str) -> Path | None:
        """Return the file that `text`, the setting at `path`, names; None after complaining."""
        found = self.place(path, text)
        if found is None:
            return None
        if found.is_dir():
            self.complain(path, f"'{text}' is a directory, not a file")
            return None
        if not found.is_file():
            self.complain(path, f"'{text}' {self.why_missing(text)}")
            return None
        if not os.access(found, os.R_OK):
            self.complain(path, f"'{text}' {UNREADABLE}")
            return None
        return found

    def place(self, path: KeyPath, text: str) -> Path | None:
        """Return what `text` names below the root, there or not; None after complaining.

        The path is not resolved: a link keeps the name that the author gave it.
        """
        if PurePosixPath(text).is_absolute() or Path(text).is_absolute():
            self.complain(path, f"'{text}' is absolute; write it relative to the project's root")
            return None
        place = self.root / text
        obstacle = find_obstacle(place)
        if obstacle is not None:
            self.complain(path, f"'{text}' cannot be looked for: {obstacle}")
            return None
        if not self.is_inside(place):
            self.complain(path, f"'{text}' leads out of the project; copy the file into it")
            return None
        normal = Path(os.path.normpath(place))
        return normal if normal.is_relative_to(self.root) else place.resolve()

    def why_missing(self, text: str) -> str:
        """Return what to say of `text`, at whose place there is no file."""
        place = self.root / text
        if place.is_symlink():
            return f"is a link to '{place.readlink()}', which does not exist"
        if place.is_dir():
            return "holds no file"
        if place.exists():
            return "is not a file but a device or a pipe"
        return f"does not exist{nearby_file(self.root, text)}"

    def is_inside(self, path: Path) -> bool:
        """Say whether `path` stays below the root, links and `..` followed."""
        try:
            return path.resolve().is_relative_to(self.root)
        except (OSError, RuntimeError):  # a loop of links
            return False

    def take(self, path: Path) -> Path:
        """Remember that the archive needs `path`, and return it."""
        self.files[path] = None
        step = path
        while step.is_symlink():  # an sdist holds a link as a link, so it needs what that leads to
            step = Path(os.path.normpath(step.parent / step.readlink()))
            if step.is_relative_to(self.root):
                self.files[step] = None
        return path

    def relative(self, path: Path) -> str:
        """Return `path` as the author would write it."""
        return path.relative_to(self.root).as_posix()

    def module(self, path: Path) -> Module | None:
        """Read a Python file, once; None if it is not Python, after complaining about the file."""
        if path not in self._modules:
            try:
                self._modules[path] = read_module(path)
            except SourceError as error:
                self._modules[path] = None
                self.complain_of_file(path, "", str(error))
        return self._modules[path]

    def json(self, path: Path, default: object = None) -> Any:  # noqa: ANN401 - whatever it says
        """Return what a JSON file says; `default` if it is no JSON, after complaining."""
        try:
            return json.loads(path.read_bytes())
        except RecursionError:
            self.complain_of_file(path, "", "is nested too deeply to be read")
        except ValueError as error:
            self.complain_of_file(path, "", f"is not JSON: {error}")
        return default


def is_file(path: Path) -> bool:
    """Say whether `path` is a file; no if its name is one that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113 - before Python 3.14 pathlib's raises


def find_obstacle(place: Path) -> str | None:
    """Return why nobody can even look whether `place` is there; None if one can."""
    try:
        place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return error.strerror
    except ValueError as error:  # a null character
        return str(error)
    return None


def is_lfs_pointer(path: Path) -> bool:
    """Say whether a file is what Git LFS leaves where it was not asked for the real one."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER
