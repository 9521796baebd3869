"""Model directories as archives unpack to them, and models as torch and onnx save them."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.model.loading import load
from hatch_mar.model.protocol import LoadOptions, Part, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.models import Ask, Load, MakeModel, RunPython

ROOT = Path(__file__).parents[2]

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.layer = torch.nn.Linear(2, width)

    def forward(self, x):
        return self.layer(x)
"""


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    return directory


@pytest.fixture
def make_model(model_dir: Path) -> MakeModel:
    """Write files into the model directory; return the options that load it."""

    def make(
        files: Mapping[str, str | bytes] | None = None,
        *,
        handler: str = "handler.py",
        manifest: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LoadOptions:
        for name, content in (files or {}).items():
            path = model_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return LoadOptions(
            model_name="digits",
            model_version="1.0",
            model_dir=str(model_dir),
            handler=handler,
            manifest={"model": {"modelName": "digits", "handler": handler, **(manifest or {})}},
            **options,
        )

    return make


@pytest.fixture
def load_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Load]:
    """Load in this process, and put back afterwards what a worker would have to itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name in ("HATCH_MAR_INSTALL_HOOKS", "TS_DECODE_INPUT_REQUEST"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    set_by_loading = ("TORCHINDUCTOR_CACHE_DIR", "AOTI_RUNTIME_CHECK_INPUTS")
    kept = {name: os.environ.get(name) for name in set_by_loading}
    before = set(sys.modules)
    yield load
    for name, value in kept.items():
        os.environ.pop(name, None)
        os.environ.update({name: value} if value is not None else {})
    for name in set(sys.modules) - before:
        spec = getattr(sys.modules[name], "__spec__", None)
        if str(getattr(spec, "origin", "")).startswith(str(tmp_path)) or name == "base_handler":
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture(scope="session")
def run_python() -> RunPython:
    """Run code in a process of its own and return the JSON it prints last."""

    def run(code: str, *arguments: str, cwd: Path | None = None, own_path: bool = True) -> Any:
        environ = {**os.environ, "PYTHONWARNINGS": "error"}
        environ.pop("PYTHONPATH", None)
        if own_path:
            environ["PYTHONPATH"] = str(ROOT)
        process = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=cwd,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout.strip().splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def ask() -> Ask:
    """Make a request with one body."""

    def make(
        body: bytes = b"", content_type: str = "application/json", name: str = "body", **more: Any
    ) -> Request:
        return Request(
            id=more.pop("id", "r1"),
            headers=more.pop("headers", ()),
            parts=[Part(name, content_type, body)],
            **more,
        )

    return make


@pytest.fixture(scope="session")
def weights() -> Any:
    """The state_dict of `Net`: a layer that returns (x + y, x - y, 0.5)."""
    torch = pytest.importorskip("torch")
    return {
        "layer.weight": torch.tensor([[1.0, 1.0], [1.0, -1.0], [0.0, 0.0]]),
        "layer.bias": torch.tensor([0.0, 0.0, 0.5]),
    }


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory, weights: Any) -> Path:
    """A directory with the weights of `Net` in every format that is loaded."""
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file

    directory = tmp_path_factory.mktemp("saved")
    (directory / "net.py").write_text(NET)
    torch.save(weights, directory / "state.pt")
    torch.save({"epoch": 3, "state_dict": weights}, directory / "nested.pth")
    torch.save({f"module.{key}": value for key, value in weights.items()}, directory / "ddp.pt")
    save_file(weights, str(directory / "state.safetensors"))
    layer = torch.nn.Linear(2, 3)
    layer.load_state_dict({key.removeprefix("layer."): value for key, value in weights.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(layer.eval()), str(directory / "script.pt"))
        rows = torch.export.Dim("rows", min=1, max=64)
        example = (torch.zeros(2, 2),)
        program = torch.export.export(layer.eval(), example, dynamic_shapes=({0: rows},))
        torch.export.save(program, str(directory / "program.pt2"))
    _save_onnx(directory, weights)
    return directory


def _save_onnx(directory: Path, weights: Any) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    initializers = [
        onnx.numpy_helper.from_array(weights["layer.weight"].numpy(), "w"),
        onnx.numpy_helper.from_array(weights["layer.bias"].numpy(), "b"),
    ]
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    for name, rows in (("dynamic.onnx", "rows"), ("pairs.onnx", 2)):
        graph = helper.make_graph(
            [gemm],
            "net",
            [helper.make_tensor_value_info("x", kind, [rows, 2])],
            [helper.make_tensor_value_info("y", kind, [rows, 3])],
            initializers,
        )
        _write_onnx(onnx, graph, directory / name)
    graph = helper.make_graph(
        [helper.make_node("Add", ["p", "q"], ["s"]), helper.make_node("Sub", ["p", "q"], ["d"])],
        "pair",
        [helper.make_tensor_value_info(name, kind, ["rows", 2]) for name in "pq"],
        [helper.make_tensor_value_info(name, kind, ["rows", 2]) for name in "sd"],
    )
    _write_onnx(onnx, graph, directory / "several.onnx")


def _write_onnx(onnx: Any, graph: Any, path: Path) -> None:
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


@pytest.fixture
def open_saved(make_model: MakeModel, load_model: Load, saved: Path, model_dir: Path) -> Any:
    """Load a model with BaseHandler from files of `saved`."""

    def open_it(weights: str | None = None, model_file: str | None = None, **options: Any) -> Any:
        manifest = {}
        if weights is not None:
            shutil.copy(saved / weights, model_dir)
            manifest["serializedFile"] = weights
        if model_file is not None:
            if not (model_dir / model_file).exists():
                shutil.copy(saved / "net.py", model_dir / model_file)
            manifest["modelFile"] = model_file
        files = options.pop("files", {})
        options = {"handler": "base_handler", **options}
        return load_model(make_model(files, manifest=manifest, **options))

    return open_it
