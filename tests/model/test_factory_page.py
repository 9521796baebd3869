"""The how-to on `handler_factory`: its handler and its unit test do what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.models import RunPython

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "handler-factory.md"
NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        assert width == 32

    def forward(self, x):
        return x
"""


def test_the_handler_passes_its_unit_test(tmp_path: Path, run_python: RunPython) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "handler.py").write_text(blocks[0])
    (tmp_path / "net.py").write_text(NET)
    script = f"import json, sys; sys.path.insert(0, '.')\n{blocks[-1]}\nprint(json.dumps(answers))"
    assert run_python(script, cwd=tmp_path) == [{"class": 1}, {"class": 0}]
