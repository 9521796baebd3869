"""`pt2` in model-config.yaml: the model goes through `torch.compile`, if that works."""

# ruff: noqa: ANN401 - models come from a library that is loaded lazily

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

logger = logging.getLogger("hatch_mar.model")


class PT2Backend(StrEnum):
    """The backends of torch.compile that TorchServe lets a config name."""

    EAGER = "eager"
    AOT_EAGER = "aot_eager"
    INDUCTOR = "inductor"
    NVFUSER = "nvfuser"
    AOT_NVFUSER = "aot_nvfuser"
    AOT_CUDAGRAPHS = "aot_cudagraphs"
    OFI = "ofi"
    FX2TRT = "fx2trt"
    ONNXRT = "onnxrt"
    IPEX = "ipex"
    TORCHXLA_TRACE_ONCE = "torchxla_trace_once"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    HPU_BACKEND = "hpu_backend"


def check_valid_pt2_backend(backend: str) -> bool:
    """Tell whether `backend` is one of `PT2Backend`; if not, a warning says so."""
    if backend in set(PT2Backend):
        return True
    known = ", ".join(PT2Backend)
    logger.warning("pt2: %r is not a supported backend; supported are %s", backend, known)
    return False


def read_options(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a config's `pt2` passes to torch.compile; None if nothing is to be compiled.

    `{compile: {enable: true, ...}}`, or, as before TorchServe 0.12, a backend's name or the options
    themselves.

    Raises:
        TypeError: it is neither.
    """
    value = config.get("pt2")
    if value is None:
        return None
    if isinstance(value, str):
        options: dict[str, Any] = {"backend": value}
    elif not isinstance(value, Mapping):
        raise TypeError(f"pt2: must be a mapping or a backend's name, not {value!r}")
    elif "compile" in value:
        section = value["compile"]
        if not isinstance(section, Mapping) or section.get("enable") is not True:
            logger.info("pt2.compile: `enable` is not true, so the model is not compiled")
            return None
        options = {key: each for key, each in section.items() if key != "enable"}
    elif "export" in value:
        return None
    else:
        options = dict(value)
    backend = options.get("backend")
    return None if backend is not None and not check_valid_pt2_backend(backend) else options


def compile_model(model: Any, config: Mapping[str, Any], *, shapes: int = 0) -> Any:
    """Return `model`, compiled if `config` wants that; where it fails, as it was, with a warning.

    torch compiles when the first batch arrives. A backend that fails then is left out, too: torch
    runs that part of the model as it is. Where batches have few `shapes`, it compiles for each of
    them, unless `config` says otherwise.

    Raises:
        TypeError: `pt2` is neither a mapping nor a name.
    """
    options = read_options(config)
    if options is None:
        return model
    if shapes:
        options.setdefault("dynamic", False)
    said = ", ".join(f"{key} {value}" for key, value in options.items()) or "torch's defaults"
    try:
        torch: Any = importlib.import_module("torch")
        dynamo: Any = importlib.import_module("torch._dynamo")
        compiled = torch.compile(model, **options)
    except Exception as error:  # noqa: BLE001 - a backend may raise anything, and none must stop the model
        logger.warning("compiling the model with %s failed, it runs as it is: %s", said, error)
        return model
    dynamo.config.suppress_errors = True
    dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, 2 * shapes)
    logger.info("compiled the model with %s", said)
    return compiled
