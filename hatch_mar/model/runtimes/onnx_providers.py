"""What ONNX Runtime runs a model with: its execution providers, and their options.

Source of the options' names: ONNX Runtime's pages on the CUDA and the TensorRT execution provider.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import onnxruntime

from hatch_mar.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hatch_mar.model.cuda.section import CudaOptions
    from hatch_mar.model.devices import DeviceName

CPU, CUDA, TENSORRT = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)

logger = logging.getLogger("hatch_mar.model")

Provider = str | tuple[str, dict[str, Any]]


def choose_providers(
    device: DeviceName,
    cuda: CudaOptions | None = None,
    *,
    max_gpu_memory: int | None = None,
    available: Sequence[str] = (),
) -> list[Provider]:
    """Return the providers for `device`, the most able first; each passes on what it cannot do.

    `cuda` is the section of model-config.yaml, `max_gpu_memory` in MB; `available` is what this
    ONNX Runtime has, which is asked if nothing is given.
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
        return [(TENSORRT, _configure_tensorrt(device, cuda.precision, max_gpu_memory)), *providers]
    logger.warning(
        "cuda.tensorrt: this ONNX Runtime has no TensorRT; the model runs with CUDA alone "
        "(pip install onnxruntime-gpu tensorrt)"
    )
    return providers


def _configure_tensorrt(
    device: DeviceName, precision: str, max_gpu_memory: int | None
) -> dict[str, Any]:
    options: dict[str, Any] = {"device_id": device.index}
    if precision == "float16":
        options["trt_fp16_enable"] = True
    elif precision == "bfloat16":
        options["trt_bf16_enable"] = True
    if max_gpu_memory:
        options["trt_max_workspace_size"] = max_gpu_memory * 2**20
    directory = _find_cache(options)
    if directory is not None:
        options |= {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(directory),
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(directory),
        }
    return options


def _find_cache(options: Mapping[str, Any]) -> Path | None:
    """Return where engines built with `options` are kept: building one takes minutes.

    Their file names hold a digest of the model and the GPU's compute capability: ONNX Runtime's
    own doing. What it leaves out is its release, and what it was told.
    """
    from hatch_mar.model.cuda.kept import directory_of, fingerprint  # noqa: PLC0415 - asked for only

    facts = {"onnxruntime": onnxruntime.__version__, "options": sorted(map(str, options.items()))}
    try:
        directory = directory_of("tensorrt") / fingerprint(facts)
        directory.mkdir(exist_ok=True)
    except (OSError, WeightsError) as error:
        logger.warning("cuda.tensorrt: engines are built anew at every start: %s", error)
        return None
    return directory
