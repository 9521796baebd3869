"""Models that AOTInductor compiled ahead of time: packaged in a `.pt2`, or a bare `.so`.

TorchServe knows the latter (`pt2: {export: {aot_compile: true}}`). A library that was compiled by
another release of torch may crash the worker, or cannot be opened: it names none.

Compiled code reads its inputs without looking at their shapes, so that a client who sends fewer
numbers would be answered with somebody else's memory. It looks if the environment says so.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
import torch._export
import torch._inductor

from hatch_mar.errors import HandlerError
from hatch_mar.model.cuda.buckets import NotInRowsError, change_tensors, cut, measure, pad
from hatch_mar.model.runtimes.modules import ModuleRuntime

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.model.source import Source

CHECK_INPUTS = "AOTI_RUNTIME_CHECK_INPUTS"
"""What has compiled code compare its inputs with those that it was compiled for."""


class CheckedModel:
    """Compiled code that looks at its inputs, and refuses none that it was right about before.

    It takes the strides of axes of length one literally, and a length that may vary for at least
    two: torch compiles so even where one is allowed.
    """

    def __init__(self, run: Any) -> None:  # noqa: ANN401 - as torch returns it
        """Call `run`."""
        self._run = run
        self._doubles = False
        """Whether a single row has to be given twice."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - torch is untyped here
        """Return the output for one batch.

        Raises:
            RuntimeError: the code was compiled for other inputs.
        """
        single = _is_single_row(args, kwargs)
        if single and self._doubles:
            return self._run_twice(args, kwargs)
        try:
            return self._run(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            args, kwargs = change_tensors((args, kwargs), _straighten)
            try:
                return self._run_twice(args, kwargs) if single else self._run(*args, **kwargs)
            except (RuntimeError, NotInRowsError):
                pass  # what was said of the input as it came is what its sender understands
            raise

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Return what torch's own object has: handlers may know it."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._run, name)

    def _run_twice(self, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        args, kwargs = pad((args, kwargs), 2)
        output = cut(self._run(*args, **kwargs), 2, 1)
        self._doubles = True
        return output


def _is_single_row(args: Any, kwargs: Any) -> bool:  # noqa: ANN401 - see above
    form = measure((*args, *kwargs.values()))
    return form is not None and form.length == 1


def _straighten(tensor: Any) -> Any:  # noqa: ANN401 - see above
    """Return `tensor` with the strides that its shape has by itself."""
    return tensor.reshape(-1).view(tensor.shape)


class ModelRuntime(ModuleRuntime):
    """Loads with `torch._inductor.aoti_load_package`, documented in spite of its underscore.

    A bare library takes `torch._export.aot_load`, as in TorchServe.
    """

    def load(self, source: Source, device: Any) -> Any:  # noqa: ANN401 - torch is untyped here
        """See `Runtime.load`; the model runs on the kind of device it was compiled for."""
        assert source.weights is not None
        os.environ.setdefault(CHECK_INPUTS, "1")  # asked once, when the code first runs
        if source.weights.suffix == ".so":
            return CheckedModel(_load_library(source.weights, device))
        index = device.index if device.type == "cuda" else -1
        path = str(source.weights)
        return CheckedModel(torch._inductor.aoti_load_package(path, device_index=index))  # noqa: SLF001


def _load_library(path: Path, device: Any) -> Any:  # noqa: ANN401 - torch is untyped here
    """Load a `.so` of `torch._export.aot_compile`, which torch means to give up."""
    load = getattr(torch._export, "aot_load", None)  # noqa: SLF001
    if load is None:
        raise HandlerError(
            f"{path.name}: torch {torch.__version__} loads no bare libraries any more: compile the "
            "model again with torch._inductor.aoti_compile_and_package, which makes a .pt2"
        )
    try:
        return load(str(path), str(device))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise HandlerError(
            f"{path.name}: cannot be loaded by torch {torch.__version__}: {reason}; compile it "
            "again with this torch, or package it as a .pt2"
        ) from error
