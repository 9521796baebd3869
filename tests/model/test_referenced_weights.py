"""Weights in several files that archives only name: from the lock to the answer of a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.write import write_archive
from hatch_mar.project.planning import make_plan
from hatch_mar.project.read import read_spec
from tests.support.exchange import Call, exchange, is_close
from tests.support.models import linear_as_onnx
from tests.support.runner import start_runner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
save_file = pytest.importorskip("safetensors.torch").save_file

PYPROJECT = """
[project]
name = "{name}"
version = "1.0"
dependencies = ["hatch-mar[serve]", "torch"]

[tool.mar]
handler = "base_handler"
{more}
weights = "{source}"
"""
MODEL = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.out(x)
"""
ROW = [0.5, -1.0, 2.25]


def write_shards(directory: Path, layer: object) -> Path:
    """Write one file for each tensor of the layer, and return their index."""
    state = {f"out.{key}": value for key, value in layer.state_dict().items()}  # type: ignore[attr-defined]
    placed = {key: f"{key}.safetensors" for key in state}
    for key, name in placed.items():
        save_file({key: state[key]}, str(directory / name))
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": placed}))
    return index


def write_onnx(directory: Path, layer: object) -> Path:
    """Write the layer as a graph and its data."""
    graph = onnx.load_model_from_string(linear_as_onnx(layer))
    path = directory / "net.onnx"
    data = {"save_as_external_data": True, "location": "net.onnx.data", "size_threshold": 0}
    onnx.save(graph, str(path), **data)
    return path


def make_archive(root: Path, source: Path, *, model_file: bool) -> Path:
    root.mkdir()
    more = 'model-file = "model.py"' if model_file else ""
    if model_file:
        (root / "model.py").write_text(MODEL)
    text = PYPROJECT.format(name=root.name, more=more, source=source.as_uri())
    (root / "pyproject.toml").write_text(text)
    environ = {**os.environ, "HATCH_MAR_CACHE_DIR": str(root / "build-cache")}
    subprocess.run([sys.executable, "-m", "hatch_mar", "lock"], cwd=root, env=environ, check=True)
    plan = make_plan(read_spec(root, environ={}))
    write_archive(plan, root / plan.filename)
    return root / plan.filename


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[float]]]:
    """Serve a sharded model and an ONNX graph with its data; yield the URL and what both answer."""
    root = tmp_path_factory.mktemp("referenced")
    weights = root / "weights"
    weights.mkdir()
    layer = torch.nn.Linear(3, 2)
    archives = [
        make_archive(root / "sharded", write_shards(weights, layer), model_file=True),
        make_archive(root / "graph", write_onnx(weights, layer), model_file=False),
    ]
    environ = {"HATCH_MAR_CACHE_DIR": str(root / "cache")}
    with start_runner(*map(str, archives), env=environ) as runner:
        assert runner.exited() is None, runner.output()
        yield runner.url, layer(torch.tensor(ROW)).tolist()


@pytest.mark.parametrize("model", ["sharded", "graph"])
def test_it_answers(served: tuple[str, list[float]], model: str) -> None:
    url, expected = served
    headers = [("Content-Type", "application/json")]
    call = Call(path=f"/predictions/{model}", headers=headers, body=json.dumps(ROW).encode())
    reply = exchange(url, call)
    assert reply.status == 200, reply
    assert is_close(reply.json(), expected, tolerance=1e-4)
