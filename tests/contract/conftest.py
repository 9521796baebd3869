"""One archive store, two servers: TorchServe and ours, asked the same things."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.exchange import Pair
from tests.support.runner import start_runner
from tests.support.torchserve import (
    WORK,
    TorchServeHome,
    install_torchserve,
    start_torchserve,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


pytest.register_assert_rewrite("tests.support.differences")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave room for a real TorchServe that has to be started again: fixtures count as well."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(420))


@pytest.fixture(scope="session")
def torchserve_home() -> TorchServeHome:
    return install_torchserve(WORK)


@pytest.fixture(scope="session")
def handlers() -> Path:
    """The projects that these tests archive, one directory each."""
    return Path(__file__).parents[1] / "projects" / "contract"


@pytest.fixture(scope="module")
def pair(torchserve_home: TorchServeHome, store: Path) -> Iterator[Pair]:
    """Serve every archive of the module's `store` with both."""
    archives = sorted(str(archive) for archive in store.iterdir())
    with start_torchserve(torchserve_home, store) as theirs, start_runner(*archives) as ours:
        assert ours.exited() is None, ours.output()
        yield Pair(
            theirs=theirs.url,
            ours=ours.url,
            their_management=theirs.management_url,
            our_management=ours.management_url,
        )
