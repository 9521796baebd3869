"""How a model is loaded: the flowchart "creating and loading a model" as a table.

The first question is whose `initialize` runs. The author's own loads whatever it likes; the
inherited one needs, for each type of model, certain files. The first row that fits decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatch_mar.project.shards import INDEX
from hatch_mar.project.suggestion import did_you_mean

if TYPE_CHECKING:
    from hatch_mar.project.reading import Reading
    from hatch_mar.project.spec import Handler, Runtime

STATE_DICTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
ENGINES = (".engine", ".plan", ".trt")
NO_WEIGHTS = ""
"""Suffix of weights that nobody named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way through the flowchart, for handlers that inherit `initialize`."""

    runtime: Runtime
    model_file: bool
    """Whether there is a model file."""
    suffixes: tuple[str, ...]
    because: str


ROWS = (
    Row(
        runtime="eager",
        model_file=True,
        suffixes=(*STATE_DICTS, NO_WEIGHTS),
        because="a model file, which the weights are loaded into",
    ),
    Row(runtime="torchscript", model_file=False, suffixes=(".pt",), because="`.pt`, no model file"),
    Row(runtime="onnx", model_file=False, suffixes=(".onnx",), because="`.onnx`"),
    Row(runtime="tensorrt", model_file=False, suffixes=ENGINES, because="a TensorRT engine"),
    Row(runtime="exported", model_file=False, suffixes=(".pt2",), because="`.pt2`"),
    Row(runtime="aoti", model_file=False, suffixes=(".so",), because="a compiled `.so`"),
)
SUFFIXES: dict[str, tuple[str, ...]] = {
    "eager": (*STATE_DICTS, NO_WEIGHTS),
    "torchscript": (".pt", ".pth", ".ts"),
    "onnx": (".onnx",),
    "tensorrt": (".pt", ".ts", ".ep", *ENGINES),
    "exported": (".pt2",),
    "aoti": (".pt2", ".so"),
}
"""What each runtime can load, where the author says which one it is."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The runtime, and why."""

    runtime: Runtime
    reason: str


def choose_runtime(
    reading: Reading, handler: Handler, *, model_file: bool, weights: str | None
) -> Choice | None:
    """Return how the model is loaded; None after complaining.

    Args:
        reading: The project.
        handler: Its handler.
        model_file: Whether it has a model file.
        weights: File name of the primary weights, if there are any.
    """
    wanted = reading.table.runtime
    if wanted != "auto":
        return _check_choice(reading, handler, wanted, model_file=model_file, weights=weights)
    if handler.kind == "factory":
        return Choice("eager", "handler_factory loads the weights into what init_function returns")
    if handler.initialize == "own":
        reason = "has its own `initialize`" if handler.kind == "class" else "is a function"
        return Choice("custom", f"the handler {reason}, which loads what it needs")
    suffix = _suffix(weights)
    for row in ROWS:
        if row.model_file == model_file and suffix in row.suffixes:
            return Choice(row.runtime, f"`initialize` is BaseHandler's; {row.because}")
    if handler.initialize == "unknown":
        return Choice("custom", "nobody can see whose `initialize` the handler has")
    reading.complain(*_no_row(suffix, weights, model_file=model_file))
    return None


def _check_choice(
    reading: Reading, handler: Handler, wanted: Runtime, *, model_file: bool, weights: str | None
) -> Choice | None:
    """Hold the author's own choice against the files there are, where `initialize` needs them."""
    choice = Choice(wanted, "so the author says")
    if wanted == "custom" or handler.kind == "factory" or handler.initialize != "inherited":
        return choice
    if wanted == "eager" and not model_file:
        reading.complain(("runtime",), "'eager' needs `model-file`, the architecture")
        return None
    if wanted != "eager" and model_file:
        reading.complain(("runtime",), f"'{wanted}' has no use for `model-file`; remove one")
        return None
    if _suffix(weights) not in SUFFIXES[wanted]:
        have = f"not '{weights}'" if weights else "and there are none"
        endings = ", ".join(suffix for suffix in SUFFIXES[wanted] if suffix)
        reading.complain(("runtime",), f"'{wanted}' needs weights ending in {endings}, {have}")
        return None
    return choice


def _suffix(weights: str | None) -> str:
    """Return how the weights end; of an index of shards, how the shards do."""
    name = (weights or "").lower().removesuffix(INDEX)
    return name[name.rfind(".") :] if "." in name else NO_WEIGHTS


def _no_row(suffix: str, weights: str | None, *, model_file: bool) -> tuple[tuple[str, ...], str]:
    """Say what is missing: the key to complain about, and the message."""
    if weights is None:
        return (
            ("weights",),
            (
                "is required, because the handler leaves loading to BaseHandler: name an eager "
                "model's `weights` and `model-file`, or a `.pt` (TorchScript), `.onnx` or `.pt2` "
                "file"
            ),
        )
    if suffix in STATE_DICTS:
        return (
            ("model-file",),
            (
                f"is required: '{weights}' holds weights alone, and the handler leaves loading to "
                "BaseHandler (TorchScript ends in .pt)"
            ),
        )
    if model_file:
        return ("model-file",), f"has no use beside '{weights}', which holds the whole model"
    endings = [each for row in ROWS for each in row.suffixes if each]
    hint = did_you_mean(suffix, endings)
    return ("runtime",), f"is required: nothing says how to load '{weights}'{hint}"
