"""What a command is about: a project, an archive of any kind, or an installed model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from click.shell_completion import CompletionItem
from click.types import StringParamType

from hatch_mar.errors import TargetError

if TYPE_CHECKING:
    import click

    from hatch_mar.archive.read import Archive

PACKED = (".mar", ".model", ".whl", ".tgz", ".tar.gz")
"""Suffixes of files: what has one is never taken for the name of an installed model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One project, archive or installed model."""

    what: str
    """As it was called on the command line."""
    kind: Literal["project", "archive", "installed"]
    """An archive is a `.mar`, a `.tar.gz`, a directory or a wheel; `Archive.kind` says which."""
    path: Path | None = None
    """None for an installed model."""

    def open(self) -> Archive:
        """Open it; a project is planned, and opened as the archive that it would become.

        Raises:
            ProblemsError: all that is wrong with the project.
            TargetError: no such model is installed.
            ArchiveError: it cannot be read.
        """
        if self.path is None:
            from hatch_mar.archive.installed import open_installed  # noqa: PLC0415 - see cli

            return open_installed(self.what)
        if self.kind == "project":
            from hatch_mar.archive.planned import open_planned  # noqa: PLC0415 - see cli
            from hatch_mar.cli.authored import read_project  # noqa: PLC0415
            from hatch_mar.project.planning import make_plan  # noqa: PLC0415

            root = self.path.resolve()
            return open_planned(make_plan(read_project(root)), root)
        from hatch_mar.archive.read import open_archive  # noqa: PLC0415 - see cli

        return open_archive(self.path)


def find_subject(what: str) -> Subject:
    """Find what `what` is: a path that exists, or else the name of an installed model.

    Raises:
        TargetError: it looks like a file, and there is none.
    """
    path = Path(what)
    if path.exists():
        kind: Literal["project", "archive"] = (
            "project" if (path / "pyproject.toml").is_file() else "archive"
        )
        return Subject(what=what, kind=kind, path=path)
    if path.is_symlink():
        raise TargetError(f"{what}: is a link to '{path.readlink()}', which does not exist")
    if "/" in what or what.endswith(PACKED):
        raise TargetError(f"{what}: no such file or directory")
    return Subject(what=what, kind="installed")


class TargetType(StringParamType):
    """What `find_subject` finds: on the command line a string, which a shell can complete."""

    name = "target"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,
        incomplete: str,
    ) -> list[CompletionItem[str]]:
        """Return the names of installed models, and leave paths to the shell."""
        del ctx, param
        from hatch_mar.archive.installed import installed_models  # noqa: PLC0415 - see cli

        names = sorted({name for name, _ in installed_models() if name.startswith(incomplete)})
        installed = [CompletionItem(name, help="an installed model") for name in names]
        return [CompletionItem(incomplete, type="file"), *installed]


TARGET = TargetType()
"""The type of arguments that name a project, an archive or an installed model."""
