"""Projects to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.project.scratch import FUNCTION_HANDLER, Scratch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """Return the smallest project that is right."""
    root = tmp_path / "project"
    root.mkdir()
    project = Scratch(root.resolve())
    project.write({"handler.py": FUNCTION_HANDLER})
    project.configure("")
    return project
