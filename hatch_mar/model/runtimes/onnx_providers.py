"""What ONNX Runtime runs a model with: its execution providers, and their options.

Source of the options' names: ONNX Runtime's pages on the CUDA and the TensorRT execution provider.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

import onnxruntime

from hatch_mar.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from hatch_mar.model.cuda.section import CudaOptions
    from hatch_mar.model.devices import DeviceName

CPU, CUDA, TENSORRT = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)
_NO_DATA = frozenset({".py", ".pyc", ".log", ".lock"})
"""Suffixes of what comes and goes in a model's directory and holds no weights."""

logger = logging.getLogger("hatch_mar.model")

Provider = str | tuple[str, dict[str, Any]]


def choose_providers(
    device: DeviceName,
    cuda: CudaOptions | None = None,
    *,
    model: Path | None = None,
    max_gpu_memory: int | None = None,
    available: Sequence[str] = (),
) -> list[Provider]:
    """Return the providers for `device`, the most able first; each passes on what it cannot do.

    `cuda` is the section of model-config.yaml, `model` the file that is run, `max_gpu_memory` in
    MB; `available` is what this ONNX Runtime has, which is asked if nothing is given.
    """
    if device.type != "cuda":
        return [CPU]
    options: dict[str, Any] = {"device_id": device.index}
    if max_gpu_memory:
        options["gpu_mem_limit"] = max_gpu_memory * 2**20
    providers: list[Provider] = [(CUDA, options), CPU]
    if cuda is None or not cuda.tensorrt:
        return providers
    if TENSORRT in (available or onnxruntime.get_available_providers()):
        configured = _configure_tensorrt(device, cuda.precision, max_gpu_memory, model)
        return [(TENSORRT, configured), *providers]
    logger.warning(
        "cuda.tensorrt: this ONNX Runtime has no TensorRT; the model runs with CUDA alone "
        "(pip install onnxruntime-gpu tensorrt)"
    )
    return providers


def _configure_tensorrt(
    device: DeviceName, precision: str, max_gpu_memory: int | None, model: Path | None
) -> dict[str, Any]:
    options: dict[str, Any] = {"device_id": device.index}
    if precision == "float16":
        options["trt_fp16_enable"] = True
    elif precision == "bfloat16":
        options["trt_bf16_enable"] = True
    if max_gpu_memory:
        options["trt_max_workspace_size"] = max_gpu_memory * 2**20
    directory = None if model is None else _find_cache(options, model)
    if directory is not None:
        options |= {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(directory),
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(directory),
        }
    return options


def _find_cache(options: Mapping[str, Any], model: Path) -> Path | None:
    """Return where engines of `model` built with `options` are kept: building one takes minutes.

    Their file names are ONNX Runtime's own doing (`TRTGenerateId`): the model's file name, the
    names in its graph, and the GPU's compute capability. An engine has the weights in it, though:
    the next version of a model, with the same names, would be answered with those of the last.
    """
    from hatch_mar.model.cuda.kept import directory_of, fingerprint  # noqa: PLC0415 - asked for only

    facts: dict[str, Any] = {
        "onnxruntime": onnxruntime.__version__,
        "options": sorted(map(str, options.items())),
    }
    try:
        facts["model"] = _digest(model)
        directory = directory_of("tensorrt") / fingerprint(facts)
        directory.mkdir(exist_ok=True)
    except (OSError, WeightsError) as error:
        logger.warning("cuda.tensorrt: engines are built anew at every start: %s", error)
        return None
    return directory


def _digest(model: Path) -> list[tuple[str, str]]:
    """Return the names and digests of `model` and of all that lies beside it: its data may."""
    digests = []
    for path in _list_files(model.parent):
        if path == model or path.suffix not in _NO_DATA:
            with path.open("rb") as file:
                digests.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    return digests


def _list_files(directory: Path) -> Iterator[Path]:
    """Yield the files in `directory` and below, also behind the links of a run directory."""
    for entry in sorted(directory.iterdir()):
        if entry.is_dir():
            yield from (path for path in sorted(entry.resolve().rglob("*")) if path.is_file())
        elif entry.is_file():
            yield entry
