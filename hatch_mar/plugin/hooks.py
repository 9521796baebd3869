"""What hatchling finds through our entry point in the group `hatch`.

Every `hatch` command in an environment that holds hatch-mar imports this module, so it imports
nothing until hatchling asks for a plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatchling.plugin import hookimpl

if TYPE_CHECKING:
    from hatch_mar.plugin.build_hook import MarBuildHook
    from hatch_mar.plugin.metadata_hook import MarMetadataHook
    from hatch_mar.plugin.target import MarBuilder


@hookimpl
def hatch_register_build_hook() -> type[MarBuildHook]:
    """Return the class behind `[tool.hatch.build.hooks.mar]`."""
    from hatch_mar.plugin.build_hook import MarBuildHook  # noqa: PLC0415 - see the module's docstring

    return MarBuildHook


@hookimpl
def hatch_register_metadata_hook() -> type[MarMetadataHook]:
    """Return the class behind `[tool.hatch.metadata.hooks.mar]`."""
    from hatch_mar.plugin.metadata_hook import MarMetadataHook  # noqa: PLC0415

    return MarMetadataHook


@hookimpl
def hatch_register_builder() -> type[MarBuilder]:
    """Return the class behind `hatch build -t mar`."""
    from hatch_mar.plugin.target import MarBuilder  # noqa: PLC0415

    return MarBuilder
