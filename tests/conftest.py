"""Fixtures that more than one room needs live in `tests/support`, one file per subject."""

from __future__ import annotations

pytest_plugins = ["tests.support.builds", "tests.support.runner"]
