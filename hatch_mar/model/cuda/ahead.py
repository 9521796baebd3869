"""Models compiled ahead of time: AOTInductor packages, built for this device and kept.

What is kept is code alone. The weights stay where they are and are given to the code when it is
loaded, so that a package is small, and the workers of a model still share their pages.

That code looks neither at the shapes that it is given nor at how they lie in memory: it would read
beyond the end of a tensor that is smaller than the one it was compiled for. What a client sends is
its own choice, so every input is compared with what was compiled, and runs through the model as it
was if it differs.
"""

# ruff: noqa: ANN401 - models and tensors are torch's, which is untyped here

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch._inductor
from torch.utils import _pytree as pytree

from hatch_mar.model.cuda.kept import describe_device, directory_of, fingerprint, make_once
from hatch_mar.model.cuda.precision import IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch.export import ExportedProgram

_CHECKS = "AOTI_RUNTIME_CHECK_INPUTS"
_SHORT = 64
"""Elements of a weight whose values may be part of the code; torch 2.13 stops at eight."""
_CLOSE = 0.01
"""By how much an answer may differ from the model's, relative to the greatest in it: code that was
compiled rounds otherwise, and TF32 or bfloat16 has three digits."""
_SETTINGS = {"aot_inductor.package_constants_in_so": False}

logger = logging.getLogger("hatch_mar.model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What one input of a program may be."""

    dtype: Any
    device: str
    """`cpu` or `cuda`."""
    sizes: tuple[int | str, ...]
    """A number, or a name that stands for the same number in every input."""
    layout: Any
    """The `torch.memory_format`."""


class AheadModel:
    """A program compiled ahead of time, and the model for what it was not compiled for."""

    def __init__(
        self, compiled: Any, model: Any, inputs: list[Shape], limits: Mapping[str, tuple[int, int]]
    ) -> None:
        """Run `compiled` on what fits `inputs`, names being within `limits`; else `model`."""
        self._compiled = compiled
        self._model = model
        self._inputs = inputs
        self._limits = limits

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output for one batch."""
        run = self._compiled if self.takes(*args, **kwargs) else self._model
        return run(*args, **kwargs)

    def takes(self, *args: Any, **kwargs: Any) -> bool:
        """Tell whether this was compiled for such an input."""
        values = pytree.tree_leaves((args, kwargs))
        named: dict[str, int] = {}
        return len(values) == len(self._inputs) and all(
            self._fits(value, wanted, named)
            for value, wanted in zip(values, self._inputs, strict=True)
        )

    def _fits(self, value: Any, wanted: Shape, named: dict[str, int]) -> bool:
        if not isinstance(value, torch.Tensor) or value.dtype != wanted.dtype:
            return False
        if value.device.type != wanted.device or value.dim() != len(wanted.sizes):
            return False
        if not value.is_contiguous(memory_format=wanted.layout):
            return False
        for size, expected in zip(value.shape, wanted.sizes, strict=True):
            if isinstance(expected, str):
                least, most = self._limits[expected]
                if not least <= size <= most or named.setdefault(expected, size) != size:
                    return False
            elif size != expected:
                return False
        return True


def compile_module(model: Any, batch: Any, device: Any) -> AheadModel:
    """Return what does as the module `model` does, compiled for `device` and any number of rows.

    `batch` is an input as the model is given it: a tensor, a tuple of them, or a mapping.

    Raises:
        Exception: torch cannot export or compile the model (it may raise anything), or what comes
            of it answers otherwise.
    """
    args, kwargs = _as_arguments(_map_tensors(batch, _at_least_two))
    with torch.no_grad(), _quietly():
        program = torch.export.export(
            model, args, kwargs, dynamic_shapes=_free_the_rows(args, kwargs)
        )
    # A size that may vary is at least two to `torch.export`; the code that comes of it takes one,
    # unless somebody has it look at its inputs.
    least = 2 if _CHECKS in os.environ else 1
    ahead = _compile_or_find(program, model, device, (args, kwargs), least=least)
    _compare(ahead, model, args, kwargs)
    return ahead


def compile_program(program: ExportedProgram, device: Any) -> AheadModel:
    """Return what does as `program.module()` does, compiled for `device`.

    Raises:
        Exception: torch cannot compile it, or what comes of it answers otherwise.
    """
    model, example = program.module(), program.example_inputs
    ahead = _compile_or_find(program, model, device, example, least=2)
    _compare(ahead, model, *example)
    return ahead


def _compile_or_find(
    program: ExportedProgram, model: Any, device: Any, example: Any, *, least: int
) -> AheadModel:
    """Compile `program`, or find what was kept of it; a size that is free may be `least`.

    `example` is what it was exported with, positional and keyword arguments.
    """
    limits = {
        str(name): (least if bounds.lower == 2 else int(bounds.lower), _as_size(bounds.upper))  # noqa: PLR2004
        for name, bounds in program.range_constraints.items()
    }
    inputs = _shapes_of(program, limits, pytree.tree_leaves(example))
    facts = {"code": _digest(program), "settings": _SETTINGS, **describe_device(device)}
    package = directory_of("aotinductor") / f"{fingerprint(facts)}.pt2"
    started = time.monotonic()
    if make_once(package, lambda path: _compile(program, path)):
        seconds = time.monotonic() - started
        logger.info("cuda.aotInductor: compiled for %s in %.1f s: %s", device, seconds, package)
    else:
        logger.info("cuda.aotInductor: compiled for %s before: %s", device, package)
    return AheadModel(_load(package, program, device), model, inputs, limits)


def _shapes_of(
    program: ExportedProgram, limits: Mapping[str, Any], examples: list[Any]
) -> list[Shape]:
    """Return what the inputs of `program`, which was exported with `examples`, may be, in order.

    Raises:
        ValueError: it takes something else than tensors whose sizes are free, or fixed.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    shapes = []
    for name, example in zip(program.graph_signature.user_inputs, examples, strict=True):
        value = values.get(str(name))
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"its input {name!r} is not a tensor")  # noqa: TRY004 - no caller's
        if any(str(size) not in limits for size in value.shape if not isinstance(size, int)):
            raise ValueError(f"its input {name!r} has a size that depends on another one")
        sizes = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
        layout = _find_layout(example)
        if layout is None:
            raise ValueError(f"its input {name!r} lies in memory in an order of its own")
        shapes.append(
            Shape(dtype=value.dtype, device=value.device.type, sizes=sizes, layout=layout)
        )
    return shapes


def _find_layout(tensor: Any) -> Any:
    """Return the memory format of `tensor`; None if it has none of the two that there are."""
    if tensor.is_contiguous():
        return torch.contiguous_format
    is_last = tensor.dim() == IMAGES and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else None


def _as_size(bound: Any) -> int:
    return sys.maxsize if bound >= sys.maxsize else int(bound)  # sympy has an infinity


def _compile(program: ExportedProgram, path: Path) -> None:
    with torch.no_grad(), _quietly():
        torch._inductor.aoti_compile_and_package(  # noqa: SLF001 - documented in spite of it
            program, package_path=str(path), inductor_configs=dict(_SETTINGS)
        )


def _load(package: Path, program: ExportedProgram, device: Any) -> Any:
    index = device.index or 0 if device.type == "cuda" else -1
    with _quietly():
        compiled = torch._inductor.aoti_load_package(  # noqa: SLF001
            # One thread at a time asks it, and a CUDA graph that holds it knows no others.
            str(package),
            run_single_threaded=True,
            device_index=index,
        )
    weights = {**program.state_dict, **program.constants}
    needed = {name: weights[name].detach() for name in compiled.get_constant_fqns()}
    compiled.load_constants(needed, check_full_update=True, user_managed=True)
    return compiled


def _compare(ahead: AheadModel, model: Any, args: Any, kwargs: Any) -> None:
    """Refuse what answers otherwise than the model it was compiled from."""
    with torch.inference_mode():
        pairs = zip(
            pytree.tree_leaves(ahead(*args, **kwargs)),
            pytree.tree_leaves(model(*args, **kwargs)),
            strict=True,
        )
        for got, expected in pairs:
            scale = _CLOSE * float(expected.abs().max()) if expected.numel() else 0.0
            torch.testing.assert_close(got, expected, rtol=_CLOSE, atol=scale)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep to ourselves what torch deprecates in itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _digest(program: ExportedProgram) -> str:
    """Stand for the code of `program`, and the kinds of its weights: not for their values.

    Inductor writes the shortest of them into the code (`GraphLowering.can_inline_constant`), so the
    values of short ones count.
    """
    digest = hashlib.sha256(program.graph_module.code.encode())
    digest.update(str(program.graph_signature).encode())
    digest.update(str(program.range_constraints).encode())
    for node in program.graph.nodes:
        value = node.meta.get("val")
        digest.update(f"{value!r}{_strides_of(value)}".encode())
    for name, value in sorted({**program.state_dict, **program.constants}.items()):
        kind = getattr(value, "dtype", type(value)), getattr(value, "shape", ())
        place = getattr(value, "device", "")
        digest.update(f"{name}{kind}{place}{_strides_of(value)}".encode())
        if isinstance(value, torch.Tensor) and value.numel() <= _SHORT:
            digest.update(repr(value.detach().cpu().tolist()).encode())
    return digest.hexdigest()


def _strides_of(value: Any) -> str:
    """Return what `repr` does not say of a tensor: the code depends on it."""
    strided = isinstance(value, torch.Tensor) and value.layout is torch.strided
    return str(value.stride()) if strided else ""


def _as_arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that a batch stands for; see `ModuleRuntime.infer`."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (batch if isinstance(batch, tuple) else (batch,)), {}


def _map_tensors(batch: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(batch, Mapping):
        return {key: change(value) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(map(change, batch))
    return change(batch)


def _at_least_two(tensor: Any) -> Any:
    """Repeat the first row: what torch sees once is a constant to it."""
    return torch.cat([tensor, tensor[:1]]) if len(tensor) == 1 else tensor


def _free_the_rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dynamic = {0: torch.export.Dim.DYNAMIC}
    return tuple(dynamic for _ in args) if args else dict.fromkeys(kwargs, dynamic)
