"""Fixtures that more than one room needs live in `tests/support`, one file per subject."""

from __future__ import annotations

import subprocess
from functools import cache
from typing import TYPE_CHECKING

from hypothesis import settings

if TYPE_CHECKING:
    import pytest

settings.register_profile("suite", deadline=None)  # an example may lose its processor for a while
settings.load_profile("suite")
pytest_plugins = ["tests.support.builds", "tests.support.runner"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave `namespaces` out where there are none: containers often may not make any.

    Nothing goes untested for that: each has a neighbour that asks the same in a way open to all.
    """
    there = [item for item in items if item.get_closest_marker("namespaces")]
    if there and not has_namespaces():
        config.hook.pytest_deselected(items=there)
        items[:] = [item for item in items if item not in there]


@cache
def has_namespaces() -> bool:
    """Tell whether a process may have a network and mounts of its own."""
    mount = "mount -t tmpfs none /mnt"
    command = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", mount]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
