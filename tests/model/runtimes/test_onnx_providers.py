"""What ONNX Runtime is told to run a model with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnxruntime")

from hatch_mar.model.cuda.section import CudaOptions
from hatch_mar.model.devices import name_device
from hatch_mar.model.runtimes.onnx_providers import CPU, CUDA, TENSORRT, choose_providers

if TYPE_CHECKING:
    from pathlib import Path

GPU = name_device(0)
TENSORRT_WANTED = CudaOptions(tensorrt=True)
ALL = [TENSORRT, CUDA, CPU]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "net.onnx").write_bytes(b"graph")
    (directory / "net.onnx.data").write_bytes(b"weights")
    return directory / "net.onnx"


def options_of(providers: list[Any], name: str) -> dict[str, Any]:
    named: dict[str, dict[str, Any]] = {each[0]: each[1] for each in providers if len(each) == 2}
    return named[name]


def test_the_cpu_needs_no_other() -> None:
    assert choose_providers(name_device(None), TENSORRT_WANTED, available=ALL) == [CPU]


def test_a_gpu_is_cuda_with_the_cpu_behind_it() -> None:
    assert choose_providers(GPU) == [(CUDA, {"device_id": 0}), CPU]


def test_its_memory_is_bounded() -> None:
    providers = choose_providers(GPU, max_gpu_memory=512)
    assert options_of(providers, CUDA)["gpu_mem_limit"] == 512 * 2**20


def test_tensorrt_goes_first_where_it_is_wanted() -> None:
    providers = choose_providers(GPU, TENSORRT_WANTED, available=ALL)
    assert [each[0] if isinstance(each, tuple) else each for each in providers] == ALL


def test_engines_are_kept(cache: Path, model: Path) -> None:
    providers = choose_providers(GPU, TENSORRT_WANTED, model=model, available=ALL)
    options = options_of(providers, TENSORRT)
    assert options["trt_engine_cache_enable"] is True
    assert options["trt_engine_cache_path"].startswith(str(cache / "compiled" / "tensorrt"))


def find_engines(model: Path, precision: str = "float32") -> str:
    cuda = CudaOptions(tensorrt=True, precision=precision)
    options = options_of(choose_providers(GPU, cuda, model=model, available=ALL), TENSORRT)
    return str(options["trt_engine_cache_path"])


def test_engines_of_another_precision_are_others(model: Path) -> None:
    paths = {find_engines(model, precision) for precision in ("float32", "float16", "bfloat16")}
    assert len(paths) == 3


@pytest.mark.parametrize("file", ["net.onnx", "net.onnx.data"])
def test_engines_of_other_weights_are_others(model: Path, file: str) -> None:
    """ONNX Runtime would not notice: it looks at names only, and an engine has its weights."""
    before = find_engines(model)
    assert find_engines(model) == before
    model.with_name(file).write_bytes(b"other")
    assert find_engines(model) != before


@pytest.mark.parametrize(
    ("precision", "option"), [("float16", "trt_fp16_enable"), ("bfloat16", "trt_bf16_enable")]
)
def test_tensorrt_is_told_the_precision(precision: str, option: str) -> None:
    cuda = CudaOptions(tensorrt=True, precision=precision)
    assert options_of(choose_providers(GPU, cuda, available=ALL), TENSORRT)[option] is True


def test_without_a_cache_engines_are_built_anew(
    cache: Path, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (cache / "file").touch()
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(cache / "file"))
    providers = choose_providers(GPU, TENSORRT_WANTED, model=model, available=ALL)
    assert "trt_engine_cache_enable" not in options_of(providers, TENSORRT)
    assert "engines are built anew at every start" in caplog.text


def test_without_tensorrt_cuda_does_it(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_providers(GPU, TENSORRT_WANTED, available=[CUDA, CPU])[0] == (
        CUDA,
        {"device_id": 0},
    )
    assert "this ONNX Runtime has no TensorRT" in caplog.text
