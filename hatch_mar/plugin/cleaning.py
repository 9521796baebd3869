"""What `hatch clean` removes: the archives that builds left, killed ones halfway, and nothing else.

An archive of ours is known by its seal. Somebody else's `.mar` is not ours to remove, and neither
is, where several projects put their archives, another project's.
"""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatch_mar.archive.read import open_archive
from hatch_mar.archive.seal import SEAL_NAME
from hatch_mar.archive.staging import PREFIX as STAGED
from hatch_mar.archive.staging import remove
from hatch_mar.errors import HatchMarError, ProblemsError
from hatch_mar.plugin.beside import archive_directory
from hatch_mar.project.read import read_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hatchling.metadata.core import ProjectMetadata

    from hatch_mar.project.spec import MarSpec

ANY_ARCHIVE = frozenset({"*.mar"})


def clean(
    root: str, hook: Mapping[str, Any], metadata: ProjectMetadata[Any], build_directory: Path
) -> None:
    """Remove the archives of earlier builds, whichever version they were of.

    A project that cannot be read any more is cleaned as far as its build directory goes.

    Raises:
        OSError: an archive cannot be removed.
    """
    remove_archives(build_directory)
    for leftover in build_directory.glob(f"{STAGED}*"):
        remove(leftover)
    try:
        spec = read_spec(
            Path(root), hook=hook, version=metadata.version, dependencies=metadata.core.dependencies
        )
        directory = archive_directory(
            spec, root=Path(root), build_directory=build_directory, environ=os.environ
        )
    except ProblemsError:
        return
    remove_archives(directory, name=spec.name, patterns=ANY_ARCHIVE | {_pattern(spec)})


def _pattern(spec: MarSpec) -> str:
    """Return what the file names of all versions have in common."""
    return glob.escape(spec.archive.filename).replace(spec.version, "*")


def remove_archives(
    directory: Path, *, name: str | None = None, patterns: frozenset[str] = ANY_ARCHIVE
) -> None:
    """Remove from `directory` the archives that hatch-mar made, of the model `name` or of any."""
    for path in _matching(directory, patterns):
        if not _is_ours(path, name):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _matching(directory: Path, patterns: frozenset[str]) -> Iterator[Path]:
    yield from sorted({path for pattern in patterns for path in directory.glob(pattern)})


def _is_ours(path: Path, name: str | None) -> bool:
    if path.is_symlink() or (path.is_dir() and not (path / SEAL_NAME).is_file()):
        return False
    try:
        with open_archive(path) as archive:
            seal = archive.seal
    except (HatchMarError, OSError):
        return False
    return seal is not None and name in (None, seal.name)
