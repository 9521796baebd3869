"""Types of the fixtures that make and load models."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hatch_mar.model.classes import classes_of
from hatch_mar.model.protocol import LoadOptions, Request
from hatch_mar.model.servable import LoadedModel

if TYPE_CHECKING:
    from pathlib import Path

MakeModel = Callable[..., LoadOptions]
"""Writes files into the model directory and returns the options that load it."""
Load = Callable[[LoadOptions], LoadedModel]
Ask = Callable[..., Request]
"""Makes a request with one body."""
RunPython = Callable[..., Any]
"""Runs code in a process of its own and returns the JSON it prints last."""


def make_network(model_file: Path) -> Any:
    """Return the one class of `model_file`, made with weights that are always the same."""
    import torch  # noqa: PLC0415 - not every test needs it

    spec = importlib.util.spec_from_file_location(model_file.stem, model_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(3)
    (network,) = classes_of(module)
    return network().eval()


def linear_as_onnx(layer: Any) -> bytes:
    """Return a `torch.nn.Linear` as an ONNX model: input `x`, output `y`, any number of rows."""
    import onnx  # noqa: PLC0415 - most tests of models need no ONNX

    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "weight", "bias"], ["y"], transB=1)],
        "linear",
        [helper.make_tensor_value_info("x", real, ["rows", layer.in_features])],
        [helper.make_tensor_value_info("y", real, ["rows", layer.out_features])],
        [
            onnx.numpy_helper.from_array(getattr(layer, name).detach().numpy(), name)
            for name in ("weight", "bias")
        ],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return bytes(model.SerializeToString())
