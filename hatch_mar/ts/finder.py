"""Old module names lead to our modules: the same objects, not copies.

`ts` and everything below it is `hatch_mar.ts`; `base_handler` is `hatch_mar.model.factory`, unless
the archive has a `base_handler.py` of its own that is not the copy of it which we put there.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

MARKER = b"HATCH_MAR_BASE_HANDLER = 1"
"""The line that marks our own `base_handler.py` in an archive."""
FACTORY_NAME, FACTORY_MODULE = "base_handler", "hatch_mar.model.factory"


class AliasLoader:
    """Loads a module under a second name.

    It has no base class on purpose: importing importlib.abc takes every worker 5 ms.
    """

    def __init__(self, target: str) -> None:
        """Lead to the module named `target`."""
        self._target = target
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002 - importlib's signature
        """Return the module that exists under the other name."""
        module = importlib.import_module(self._target)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module back its own spec, which importlib has replaced with the alias's."""
        module.__spec__ = self._spec


class AliasFinder:
    """Knows the old names, for one model directory."""

    def __init__(self, model_dir: Path | None) -> None:
        """Look at `model_dir` for a `base_handler.py`."""
        self._has_own_base_handler = model_dir is not None and has_own_base_handler(model_dir)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - importlib's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return a spec for an old name that we have, None for all others."""
        real = self._translate(fullname)
        found = None if real is None else importlib.util.find_spec(real)
        if real is None or found is None:
            return None
        is_package = found.submodule_search_locations is not None
        loader: Any = AliasLoader(real)
        return ModuleSpec(fullname, loader, is_package=is_package)

    def _translate(self, fullname: str) -> str | None:
        if fullname == "ts" or fullname.startswith("ts."):
            return f"hatch_mar.{fullname}"
        if fullname == FACTORY_NAME and not self._has_own_base_handler:
            return FACTORY_MODULE
        return None


def install(model_dir: Path | None = None) -> None:
    """Make the old names importable in this process; calling it again looks at `model_dir` anew."""
    sys.meta_path[:] = [
        AliasFinder(model_dir),
        *(finder for finder in sys.meta_path if not isinstance(finder, AliasFinder)),
    ]


def has_own_base_handler(model_dir: Path) -> bool:
    """Tell whether `model_dir` has a `base_handler.py` that is not our copy of the factory."""
    path = model_dir / f"{FACTORY_NAME}.py"
    return path.is_file() and MARKER not in path.read_bytes()


def offer() -> None:
    """Make the old names importable where nothing else has them: an installed TorchServe wins."""
    if not any(isinstance(finder, AliasFinder) for finder in sys.meta_path):
        fallback: Any = AliasFinder(None)
        sys.meta_path.append(fallback)
