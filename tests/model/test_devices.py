"""Devices; on a machine without a GPU only the names of them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.model.devices import apply_memory_limit, name_device, prefer_tensor_cores

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.models import Ask, Load, MakeModel, RunPython

torch: Any = pytest.importorskip("torch")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.parametrize(
    ("gpu_id", "name", "kind", "index"), [(None, "cpu", "cpu", None), (1, "cuda:1", "cuda", 1)]
)
def test_a_device_has_a_name(gpu_id: int | None, name: str, kind: str, index: int | None) -> None:
    device = name_device(gpu_id)
    assert (str(device), device.type, device.index) == (name, kind, index)


def test_torch_understands_the_name() -> None:
    assert torch.zeros(1).to(name_device(None)).device.type == "cpu"


def test_no_gpu_needs_no_limit() -> None:
    apply_memory_limit(None, 500)
    apply_memory_limit(0, None)


def test_the_cpu_has_no_tensor_cores() -> None:
    before = torch.get_float32_matmul_precision()
    prefer_tensor_cores(torch.device("cpu"))
    assert torch.get_float32_matmul_precision() == before


WHERE = """
import torch
from base_handler import handler_factory

class Where(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        assert x.device == self.weight.device
        return torch.full_like(x, float(x.is_cuda))

handle = handler_factory(Where)
"""


@pytest.mark.gpu
@needs_gpu
def test_the_factory_runs_on_the_gpu(make_model: MakeModel, load_model: Load, ask: Ask) -> None:
    model = load_model(make_model({"handler.py": WHERE}, gpu_id=0))
    answers = model.predict([ask(b"[1.0]"), ask(b"[2.0]")])
    assert [json.loads(bytes(answer.body)) for answer in answers] == [[1.0], [1.0]]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("file", ["script.pt", "program.pt2"])
def test_base_handler_runs_on_the_gpu(  # noqa: PLR0917 - fixtures
    make_model: MakeModel, load_model: Load, ask: Ask, saved: Path, model_dir: Path, file: str
) -> None:
    shutil.copy(saved / file, model_dir)
    manifest = {"serializedFile": file}
    model = load_model(make_model(handler="base_handler", manifest=manifest, gpu_id=0))
    (answer,) = model.predict([ask(b"[1.0, 2.0]")])
    assert json.loads(bytes(answer.body)) == pytest.approx([3.0, -1.0, 0.5], abs=1e-2)


GPU_PROCESS = """
import json, sys
from hatch_mar.model.loading import load
from hatch_mar.model.protocol import LoadOptions, Part, Request

options = LoadOptions(
    model_name="m", model_version="1", model_dir=sys.argv[1], handler="handler.py",
    gpu_id=0, max_gpu_memory=256, isolate=True,
)
model = load(options)
requests = [
    Request(id=str(size), headers=[], parts=[Part("body", "application/json", str(size).encode())])
    for size in json.loads(sys.argv[2])
]
statuses = [answer.status for answer in model.predict(requests)]
print(json.dumps([statuses, model.device_lost]))
"""


@pytest.mark.gpu
@needs_gpu
def test_a_model_gets_no_more_memory_than_its_limit(model_dir: Path, run_python: RunPython) -> None:
    (model_dir / "handler.py").write_text("""
import torch

def handle(data, context):
    if data is None:
        return None
    return [torch.zeros(row["body"] * 2**20, dtype=torch.uint8, device="cuda:0").numel()
            for row in data]
""")
    statuses, lost = run_python(GPU_PROCESS, str(model_dir), "[64, 512, 64]")
    assert statuses == [200, 507, 200]
    assert not lost


@pytest.mark.gpu
@needs_gpu
def test_a_failed_device_assertion_loses_the_device(model_dir: Path, run_python: RunPython) -> None:
    (model_dir / "handler.py").write_text("""
import torch

def handle(data, context):
    if data is None:
        return None
    table = torch.zeros(4, device="cuda:0")
    return [table[torch.tensor([row["body"]], device="cuda:0")].tolist() for row in data]
""")
    assert run_python(GPU_PROCESS, str(model_dir), "[1]") == [[200], False]
    statuses, lost = run_python(GPU_PROCESS, str(model_dir), "[1, 99]")
    assert statuses == [507, 507]
    assert lost
