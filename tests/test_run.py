"""The command that CI runs notices what was left out."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.run import unexcused_skips

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("module", "noticed"),
    [
        ("def test_it(): pytest.skip('no java on PATH')", 1),
        ("@pytest.mark.skipif(True, reason='no java')\ndef test_it(): pass", 1),
        ("pytest.skip('no java', allow_module_level=True)", 1),
        ("def test_it(): pytest.importorskip('no_such_module')", 1),
        ("def test_it(): pytest.skip('needs an NVIDIA GPU')", 0),
        ("pytest.skip('no gpu here', allow_module_level=True)", 0),
        ("@pytest.mark.xfail(reason='a known bug')\ndef test_it(): assert False", 0),
        ("def test_it(): pass", 0),
    ],
)
def test_only_the_lack_of_a_gpu_excuses_a_skip(tmp_path: Path, module: str, noticed: int) -> None:
    (tmp_path / "test_module.py").write_text(f"import pytest\n{module}\n")
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "--rootdir=.", f"--junit-xml={report}", "."]
    subprocess.run(command, check=False, cwd=tmp_path, capture_output=True)
    lines = unexcused_skips(report)
    assert len(lines) == noticed
    assert all("java" in line or "no_such_module" in line for line in lines)
