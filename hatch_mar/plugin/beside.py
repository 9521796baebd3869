"""Where the `.mar` goes: beside the wheel, unless somebody said otherwise."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.archive.staging import PREFIX as STAGED
from hatch_mar.archive.staging import replacing
from hatch_mar.archive.write import write_archive
from hatch_mar.errors import ArchiveError, Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.archive.plan import Plan
    from hatch_mar.project.spec import MarSpec

DIRECTORY_VARIABLE = "HATCH_MAR_DIR"


def archive_directory(
    spec: MarSpec, *, root: Path, build_directory: Path, environ: Mapping[str, str]
) -> Path:
    """Return the directory for the archive: `HATCH_MAR_DIR`, else `archive.directory`.

    `HATCH_MAR_DIR` is relative to the project, `archive.directory` to the directory of the wheel.

    Raises:
        ProblemsError: `HATCH_MAR_DIR` is relative, and this build runs in a directory that the
            front end deletes.
    """
    asked = environ.get(DIRECTORY_VARIABLE)
    if not asked:
        return (build_directory / spec.archive.directory).resolve()
    if not Path(asked).is_absolute() and (root / "PKG-INFO").is_file():
        message = (
            f"'{asked}' is relative, and this build runs in an unpacked sdist; make it absolute"
        )
        raise ProblemsError([Problem(DIRECTORY_VARIABLE, "", message)])
    return (root / asked).resolve()


class StagedArchive:
    """An archive that has been written, and becomes visible when the wheel is there.

    It waits in a hidden directory beside its place, which is gone when the process ends, whoever
    ended it: another hook may fail before the wheel is finished.
    """

    def __init__(self, plan: Plan, path: Path) -> None:
        """Write the archive of `plan`, to be put at `path`.

        Raises:
            ArchiveError: a source cannot be read, or changes meanwhile; or there is no place to
                write to.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._scratch = tempfile.TemporaryDirectory(
                prefix=STAGED, dir=path.parent, ignore_cleanup_errors=True
            )
        except OSError as error:
            raise ArchiveError(
                f"{path.parent}: cannot be written to: {error.strerror}; name another place for "
                f"the archive: {DIRECTORY_VARIABLE}, or tool.mar.archive.directory"
            ) from error
        self._staged = Path(self._scratch.name, path.name)
        self.seal = write_archive(plan, self._staged)

    def put(self) -> None:
        """Move the archive to its place; one that is there is replaced.

        Raises:
            ArchiveError: something is there that is no archive.
            OSError: it cannot be moved.
        """
        with replacing(self.path):
            self._staged.replace(self.path)
        self.discard()

    def discard(self) -> None:
        """Remove what has not been put in its place."""
        self._scratch.cleanup()


def is_wanted(spec: MarSpec, environ: Mapping[str, str]) -> bool:
    """Tell whether a wheel build should write the archive too.

    pip builds in a directory that it deletes, so there only `HATCH_MAR_DIR` makes sense.
    """
    if environ.get(DIRECTORY_VARIABLE):
        return True
    return spec.archive.enabled and "PIP_BUILD_TRACKER" not in environ


def notice(archive: Path, *, root: Path, build_directory: Path) -> str:
    """Return the line that says what was written and, in the wheel's directory, how to upload."""
    size = f"{archive.stat().st_size:,} bytes" if archive.is_file() else "a directory"
    line = f"hatch-mar: wrote {_below(archive, root)} ({size})"
    if not archive.is_relative_to(build_directory.resolve()):
        return line
    dist = _below(build_directory.resolve(), root)
    return f"{line}; twine refuses foreign files: twine upload {dist}/*.whl {dist}/*.tar.gz"


def _below(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
