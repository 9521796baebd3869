"""Models that pip installed, found by name.

The wheel of a model has an entry point in the group `hatch_mar.models`: `<name> = <package>`. The
package holds either the unpacked archive or, installed in editable mode, a map of the source tree.
Nothing of it is imported to find that out.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from hatch_mar.archive.editable import MAP_NAME, open_editable
from hatch_mar.archive.packaged import ENTRY_POINT_GROUP, MODEL_DIRECTORY
from hatch_mar.archive.read import Archive, open_directory
from hatch_mar.errors import TargetError


def installed_models() -> list[tuple[str, str]]:
    """Return the served name and the package of every installed model, sorted."""
    return sorted({(entry.name, entry.value) for entry in entry_points(group=ENTRY_POINT_GROUP)})


def find_package(model: str) -> Path:
    """Return the directory of the package of `model`, a served name or the package's own.

    Raises:
        TargetError: no such model is installed, its files are gone, or two packages want the name.
    """
    models = installed_models()
    packages = sorted({package for name, package in models if model in (name, package)})
    if not packages:
        known = ", ".join(name for name, _ in models) or "none"
        raise TargetError(f"{model}: no such model is installed (installed: {known})")
    if len(packages) > 1:
        raise TargetError(f"{model}: more than one package has this name: {', '.join(packages)}")
    package = packages[0]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise TargetError(f"{model}: its package '{package}' cannot be found; install it again")
    return Path(spec.submodule_search_locations[0])


def find_model_directory(model: str) -> Path:
    """Return the unpacked archive of `model`.

    Raises:
        TargetError: it is not installed, or only in editable mode.
    """
    package = find_package(model)
    if (package / MAP_NAME).is_file():
        raise TargetError(
            f"{model}: is installed in editable mode; build its archive: hatch build -t mar"
        )
    return package / MODEL_DIRECTORY


def open_installed(model: str) -> Archive:
    """Open the installed `model`, a served name or the name of its package.

    Raises:
        TargetError: as `find_package`.
        ArchiveError: its files are no archive.
    """
    package = find_package(model)
    if (package / MAP_NAME).is_file():
        return open_editable(package)
    return open_directory(package / MODEL_DIRECTORY)
