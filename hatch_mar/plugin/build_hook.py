"""`[tool.hatch.build.hooks.mar]`: what a model adds to an sdist, a wheel and an editable wheel.

This file only tells the targets apart; `build.py` does the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

from hatch_mar.plugin.reporting import one_message

if TYPE_CHECKING:
    from hatch_mar.plugin.build import WheelBuild


class MarBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Turns a project with `[tool.mar]` into a model's package.

    The base class has no type parameters here: hatchling 1.32.3 takes two of them, others one.
    """

    PLUGIN_NAME = "mar"
    _wheel: WheelBuild | None = None

    def clean(self, versions: list[str]) -> None:  # noqa: ARG002
        """Remove the archives that builds of the wheel left."""
        from hatch_mar.plugin.beside import remove_archives  # noqa: PLC0415 - as in hooks.py

        if self.target_name == "wheel":  # another target's turn may come when the wheel is built
            remove_archives(Path(self.directory))

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Check the project, and hand hatchling the files that the target needs."""
        if self.target_name not in ("sdist", "wheel"):
            return
        from hatch_mar.plugin.build import add_to_sdist, begin_wheel  # noqa: PLC0415

        with one_message(self.app.abort):
            if self.target_name == "sdist":
                add_to_sdist(self, build_data)
            else:
                self._wheel = begin_wheel(self, build_data, editable=version == "editable")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Complete the wheel and read it back."""
        if self._wheel is not None:
            with one_message(self.app.abort):
                self._wheel.finish(Path(artifact_path))
