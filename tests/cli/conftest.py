"""The program, and a cache of weights that is the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.commands import Program

if TYPE_CHECKING:
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
