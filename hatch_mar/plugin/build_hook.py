"""`[tool.hatch.build.hooks.mar]`: what a model adds to an sdist, a wheel and an editable wheel.

This file only tells the targets apart; `build.py` does the work.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

from hatch_mar.plugin.reporting import one_message

if TYPE_CHECKING:
    from hatch_mar.plugin.build import WheelBuild
    from hatch_mar.plugin.payload import Stage


class MarBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Turns a project with `[tool.mar]` into a model's package.

    The base class has no type parameters here: hatchling 1.32.3 takes two of them, others one.
    """

    PLUGIN_NAME = "mar"
    _wheel: WheelBuild | None = None
    _sdist: Stage | None = None

    def clean(self, versions: list[str]) -> None:  # noqa: ARG002
        """Remove the archives that earlier builds of the wheel left.

        What this build has just made is its result: `--clean-hooks-after` is for by-products.
        """
        if self.target_name != "wheel" or self._wheel is not None:
            return  # another target's turn may come when the wheel is built
        from hatch_mar.plugin.cleaning import clean  # noqa: PLC0415 - as in hooks.py

        with one_message(self.app.abort):
            clean(self.root, self.config, self.metadata, Path(self.directory))

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Check the project, and hand hatchling the files that the target needs."""
        if self.target_name not in ("sdist", "wheel"):
            return
        from hatch_mar.plugin.build import add_to_sdist, begin_wheel  # noqa: PLC0415

        with one_message(self.app.abort):
            if self.target_name == "sdist":
                self._sdist = add_to_sdist(self, build_data)
                return
            self._wheel = begin_wheel(self, build_data, editable=version == "editable")
            if _only_hooks_run():
                self._wheel.put_archive()
                self._wheel.close()

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Complete the wheel and read it back."""
        if self._sdist is not None:
            self._sdist.close()
        if self._wheel is not None:
            with one_message(self.app.abort):
                self._wheel.finish(Path(artifact_path))


def _only_hooks_run() -> bool:
    """Tell whether this build ends when the hooks have run: there will be no wheel to wait for.

    hatchling does not tell its hooks; its variable and its flag are where it has it from.
    """
    variable = os.environ.get("HATCH_BUILD_HOOKS_ONLY", "")
    return variable in ("true", "1") or "--hooks-only" in sys.argv
