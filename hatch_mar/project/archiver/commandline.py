"""A model described by options instead of a pyproject.toml: its files may lie anywhere.

What a build refuses because TorchServe would shrug at it is a warning here: the options are those
of an old program, and the scripts that call it have to go on working.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.errors import Problem
from hatch_mar.project.document import Origin
from hatch_mar.project.reading import UNREADABLE, Reading
from hatch_mar.project.suggestion import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.project.document import KeyPath

FLAGS: Mapping[str, str] = {
    "name": "--model-name",
    "version": "--version",
    "handler": "--handler",
    "model-file": "--model-file",
    "weights": "--serialized-file",
    "extra-files": "--extra-files",
    "requirements": "--requirements-file",
    "config": "--config-file",
    "runtime": "--runtime",
    "export-path": "--export-path",
    "archive-format": "--archive-format",
    "model-path": "--model-path",
}
"""The options by the keys of `[tool.mar]` that mean the same, where there are such."""


@dataclass(slots=True, kw_only=True)
class CommandLine(Reading):
    """One reading of the options; `notes` are its warnings."""

    places: tuple[Path, ...]
    """Directories in which relative files are looked for, the first one that has them wins."""

    def origin(self, path: KeyPath) -> Origin:
        """Return the option that stands for the key at `path`."""
        return Origin("", FLAGS[str(path[0])])

    def complain(self, path: KeyPath, message: str) -> None:
        """Add a problem with the option that stands for the key at `path`, once."""
        problem = Problem("", self.origin(path).key, message)
        if problem not in self.problems:
            self.problems.append(problem)

    def complain_of_file(self, path: Path | None, key: str, message: str) -> None:
        """Warn of what a file says: the old program never looked into one."""
        self.warn(str(Problem(self.relative(path) if path else "", key, message)))

    def warn(self, message: str) -> None:
        """Add a warning, once."""
        if message not in self.notes:
            self.notes.append(message)

    def find_file(self, path: KeyPath, text: str) -> Path | None:
        """Return the file that `text`, the option for `path`, names; None after complaining."""
        found = self.find(path, text)
        if found is None:
            return None
        flaw = find_flaw_of_file(found)
        if flaw is not None:
            self.complain(path, f"'{text}' {flaw}")
            return None
        return found

    def find(self, path: KeyPath, text: str) -> Path | None:
        """Return what `text` names in the first place that has it; None after complaining."""
        try:
            found = self._look(text)
        except (OSError, ValueError) as error:  # ValueError: a null character
            reason = error.strerror if isinstance(error, OSError) else error
            self.complain(path, f"'{text}' cannot be looked for: {reason}")
            return None
        if found is None:
            self.complain(path, f"'{text}' does not exist{self._nearby(text)}")
        elif not found.exists():
            target = found.readlink()
            self.complain(path, f"'{text}' is a link to '{target}', which does not exist")
            return None
        return found

    def expand(self, path: KeyPath, pattern: str) -> list[Path]:
        """Return what `pattern` stands for in the first place where it stands for anything.

        `**` is no more than `*`, and no wildcard finds what is hidden. Where there is a file of
        that very name, the pattern stands for it alone.
        """
        found = self._look(pattern)
        if found is not None:
            return [found]
        for place in self.places:
            names = sorted(glob.glob(pattern, root_dir=place))  # noqa: PTH207 - skips hidden files
            if names:
                return [place / name for name in names]
        self.warn(f"{self.origin(path).key}: '{pattern}' matches no file")
        return []

    def _look(self, text: str) -> Path | None:
        """Return what `text` names, be it a broken link; None if it names nothing.

        Raises:
            OSError: nobody can tell.
            ValueError: it can be no file's name.
        """
        for place in self.places:
            try:
                (place / text).lstat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            return place / text
        return None

    def is_inside(self, path: Path) -> bool:
        """Say yes: options may name any file of the machine."""
        del path
        return True

    def relative(self, path: Path) -> str:
        """Return `path` as a person would write it here."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def suggest_package(self, place: str, package: str) -> None:
        """Warn of a package that is imported, is here, and is not in the archive."""
        self.warn(
            f"{place}: '{package}' is not in the archive; --extra-files drops the name of a folder "
            "that it is given, so name the folder that holds the package"
        )

    def _nearby(self, text: str) -> str:
        folder = (self.places[0] / text).parent
        if not folder.is_dir():
            return ""
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        return did_you_mean(Path(text).name, names)


def find_flaw_of_file(path: Path) -> str | None:
    """Return why what is at `path` cannot be a member, or None if it can."""
    if path.is_dir():
        return "is a directory, not a file"
    if not path.is_file():
        return "is not a file but a device or a pipe"
    return None if os.access(path, os.R_OK) else UNREADABLE
