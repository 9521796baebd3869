"""`hatch build -t mar`: the archive alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.plugin.interface import BuilderInterface

from hatch_mar.plugin.reporting import one_message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class MarBuilder(BuilderInterface):  # type: ignore[type-arg]
    """Writes the archive, and nothing else.

    Who asks for this target asks for the archive: `archive.enabled` is about builds of the wheel.
    """

    PLUGIN_NAME = "mar"

    def get_version_api(self) -> dict[str, Callable[..., str]]:
        """Return the one way to build: there are no versions of an archive."""
        return {"standard": self.build_standard}

    def get_default_versions(self) -> list[str]:
        """Return the names in `get_version_api` that are built by default."""
        return ["standard"]

    def clean(self, directory: str, versions: list[str]) -> None:  # noqa: ARG002
        """Remove the archives of earlier builds."""
        from hatch_mar.plugin.cleaning import clean  # noqa: PLC0415 - as in hooks.py

        with one_message(self.app.abort):
            clean(self.root, self._hook_table(), self.metadata, Path(directory))

    def build_standard(self, directory: str, **_build_data: Any) -> str:  # noqa: ANN401
        """Write the archive and return its path."""
        from hatch_mar.plugin.build import build_archive, read_project  # noqa: PLC0415

        with one_message(self.app.abort):
            project = read_project(self.root, self._hook_table(), self.metadata)
            archive = build_archive(project, build_directory=Path(directory), environ=os.environ)
            archive.put()
            return str(archive.path)

    def _hook_table(self) -> Mapping[str, Any]:
        table: Mapping[str, Any] = self.config.hook_config.get("mar", {})
        return table
