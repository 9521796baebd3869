"""The program, and a cache of weights that is the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.archives import write_mar
from tests.support.commands import Program
from tests.support.daemon import HANDLER, Home
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def hatch_mar(capsys: pytest.CaptureFixture[str]) -> Program:
    """`hatch-mar`, in this process."""
    return Program(capsys)


@pytest.fixture
def weights_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights."""
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    for name in ("store", "tmp"):
        (tmp_path / name).mkdir()
    write_mar(tmp_path / "store", "fine", HANDLER)
    first, second, third = free_ports(3)
    home = Home(path=tmp_path, ports=(first, second, third), log=tmp_path / "none")
    home.configure()
    yield home
    home.run("--stop")
