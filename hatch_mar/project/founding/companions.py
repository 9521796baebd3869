"""What a Python file outside of a project brings along: the modules beside it that it imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.project.packages import walk
from hatch_mar.project.source import SourceError, read_module

if TYPE_CHECKING:
    from pathlib import Path


def find_companions(path: Path) -> dict[str, Path]:
    """Return the files beside `path` that importing it needs, by their paths from its folder.

    A package is taken whole. What cannot be read brings nothing: whoever imports it will hear why.
    """
    folder = path.parent
    found: dict[str, Path] = {}
    queue = [path]
    seen = {path}
    while queue:
        for top in _imported(queue.pop(0)):
            module, package = folder / f"{top}.py", folder / top
            files = [module] if module.is_file() else []
            if (package / "__init__.py").is_file():
                files = list(walk(package))
            for file in files:
                if file not in seen:
                    seen.add(file)
                    found[file.relative_to(folder).as_posix()] = file
                    queue += [file] if file.suffix == ".py" else []
    return found


def _imported(path: Path) -> list[str]:
    """Return the top-level names that a file imports."""
    try:
        return [each.top for each in read_module(path).imports if not each.level]
    except SourceError:
        return []
