"""How BaseHandler loads a model: one file per runtime, chosen by a table.

The files here import torch or onnxruntime; only `open_runtime` imports them, and only the one that
the model needs.
"""

from __future__ import annotations

import importlib
import zipfile
from typing import TYPE_CHECKING, Any, Protocol

from hatch_mar.errors import HandlerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hatch_mar.model.source import Source

RUNTIMES = {
    "eager": "hatch_mar.model.runtimes.eager",
    "torchscript": "hatch_mar.model.runtimes.torchscript",
    "tensorrt": "hatch_mar.model.runtimes.tensorrt",
    "onnx": "hatch_mar.model.runtimes.onnx",
    "exported": "hatch_mar.model.runtimes.exported",
    "aoti": "hatch_mar.model.runtimes.aoti",
}
"""Every runtime by name. Each module has a class `ModelRuntime`."""


class Runtime(Protocol):
    """What BaseHandler asks of a runtime."""

    def choose_device(self, gpu_id: int | None) -> Any:  # noqa: ANN401 - torch.device or DeviceName
        """Return the device the model will be on."""
        ...

    def load(self, source: Source, device: Any) -> Any:  # noqa: ANN401 - whatever `infer` takes
        """Return the model, ready to infer.

        Raises:
            HandlerError: the files are not what the runtime needs.
        """
        ...

    def make_batch(self, values: Sequence[Any], device: Any) -> Any:  # noqa: ANN401
        """Return `values`, one per request, as one input.

        Raises:
            ValueError: they do not fit together, or are nothing a model takes.
        """
        ...

    def infer(self, model: Any, batch: Any, device: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Run `model`."""
        ...


def choose_runtime(source: Source) -> str:
    """Return the name of the runtime that the files of `source` call for.

    Raises:
        HandlerError: they call for none.
    """
    if source.model_file is not None:
        return "eager"
    if source.weights is not None:
        for suffixes, choose in BY_SUFFIX:
            if source.weights.suffix in suffixes:
                return choose(source.weights)
    name = "no weights" if source.weights is None else repr(source.weights.name)
    raise HandlerError(
        f"the archive has no model file and {name}: BaseHandler loads a model file with weights "
        "(eager), or weights alone that are TorchScript or TensorRT (.pt), ONNX (.onnx), an "
        "exported program (.pt2) or compiled (.pt2, .so); for anything else write the handler's "
        "`initialize`"
    )


def open_runtime(name: str) -> Runtime:
    """Import the runtime `name`, with the library it needs.

    Raises:
        HandlerError: the library is not installed.
    """
    try:
        runtime: Runtime = importlib.import_module(RUNTIMES[name]).ModelRuntime()
    except ModuleNotFoundError as error:
        raise HandlerError(
            f"runtime {name!r}: needs the package {error.name!r}, which is not installed"
        ) from error
    return runtime


def _of_torch_archive(weights: Path) -> str:
    """Tell what a `.pt` file holds, by its members: torch gives one suffix to four formats."""
    if not zipfile.is_zipfile(weights):
        return _refuse_state_dict(weights)
    with zipfile.ZipFile(weights) as archive:
        names = archive.namelist()
        if not any(name.endswith("/constants.pkl") for name in names):
            is_exported = any("archive_format" in name or "/models/" in name for name in names)
            return _of_exported(weights) if is_exported else _refuse_state_dict(weights)
        code = (name for name in names if "/code/" in name and name.endswith(".py"))
        is_tensorrt = any(b"torch.classes.tensorrt" in archive.read(name) for name in code)
        return "tensorrt" if is_tensorrt else "torchscript"


def _of_exported(weights: Path) -> str:
    if not zipfile.is_zipfile(weights):
        raise HandlerError(f"{weights.name}: not an exported program: not a zip archive")
    with zipfile.ZipFile(weights) as archive:
        is_compiled = any("/aotinductor/" in name for name in archive.namelist())
    return "aoti" if is_compiled else "exported"


def _refuse_state_dict(weights: Path) -> str:
    raise HandlerError(
        f"{weights.name}: holds weights without their architecture (it is not TorchScript); "
        "BaseHandler needs the model file, too"
    )


BY_SUFFIX: tuple[tuple[tuple[str, ...], Callable[[Path], str]], ...] = (
    ((".onnx",), lambda _: "onnx"),
    ((".pt2",), _of_exported),
    ((".so",), lambda _: "aoti"),
    ((".engine", ".plan"), lambda _: "tensorrt"),
    ((".safetensors", ".json"), _refuse_state_dict),
    ((".pt", ".pth", ".ts", ".bin", ".jit"), _of_torch_archive),
)
"""What weights call for when no model file comes with them."""
