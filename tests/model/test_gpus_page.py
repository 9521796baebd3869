"""The how-to on GPUs: its handler of bytes answers as one of floats, and its section is valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from hatch_mar.archive.modelconfig import check_model_config

if TYPE_CHECKING:
    from tests.support.models import RunPython

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "gpus.md").read_text(encoding="utf-8")
NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return self.gain * images.mean((2, 3))
"""
ASK = """
import io, json, sys
sys.path.insert(0, ".")
import numpy, torch
from PIL import Image
from handler import NetOfImages, handler

with torch.device("meta"):
    assert list(NetOfImages().state_dict()) == ["gain"]
image = Image.fromarray(numpy.full((8, 8, 3), 255, "uint8"))
handler.initialize(None)
handler.model.gain.data += 1
(answer,) = handler([{"body": image}])
print(json.dumps(answer))
"""


def test_every_section_is_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert any("cuda:" in block for block in blocks)
    assert [check_model_config(yaml.safe_load(block), "page") for block in blocks] == [
        [] for _ in blocks
    ]


def test_bytes_are_normalised_by_the_model(tmp_path: Path, run_python: RunPython) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "handler.py").write_text(block)
    (tmp_path / "net.py").write_text(NET)
    red, green, blue = run_python(ASK, cwd=tmp_path)
    assert abs(red - (1 - 0.485) / 0.229) < 1e-4
    assert abs(green - (1 - 0.456) / 0.224) < 1e-4
    assert abs(blue - (1 - 0.406) / 0.225) < 1e-4
