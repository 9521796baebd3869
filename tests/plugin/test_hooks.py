"""What hatchling is given, and what that costs every `hatch` command."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hatchling.plugin.manager import PluginManager

from hatch_mar.plugin import hooks

HEAVY = {"asyncio", "hatch_mar.project.read", "onnx", "pydantic", "torch", "yaml"}
LOADED = "import sys; print('\\n'.join(sys.modules))"


def loaded_by(statement: str) -> set[str]:
    command = [sys.executable, "-c", f"{statement}; {LOADED}"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_hooks_loads_nothing_heavy() -> None:
    assert not HEAVY & loaded_by("import hatch_mar.plugin.hooks")


def test_nor_does_registering_them() -> None:
    calls = "h.hatch_register_build_hook(), h.hatch_register_metadata_hook()"
    assert not HEAVY & loaded_by(f"import hatch_mar.plugin.hooks as h; {calls}")


@pytest.mark.parametrize("kind", ["build_hook", "metadata_hook", "builder"])
def test_each_plugin_is_called_mar(kind: str) -> None:
    manager = PluginManager()
    manager.manager.register(hooks)
    assert getattr(manager, kind).get("mar").PLUGIN_NAME == "mar"
