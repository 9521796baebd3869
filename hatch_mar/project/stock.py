"""Where stock TorchServe cannot follow: notes for an author who serves there too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.project.baggage import FACTORY_FILE
from hatch_mar.project.runtime import ENGINES
from hatch_mar.project.travel import FACTORY_MODULE, Travel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hatch_mar.project.reading import Reading
    from hatch_mar.project.spec import Entry, Handler, Initialize, WeightsFile

BASE_HANDLER = "base_handler"
"""The default handler that is BaseHandler itself."""
NO_DOWNLOAD = (
    "TorchServe downloads nothing; there, somebody has to put the file into the model directory"
)
NO_PATH = "TorchServe's BaseHandler does not look there; it needs the weights in the archive"
UNTRAINED = (
    "TorchServe's BaseHandler does not look there: it serves the model untrained, and its answers "
    "are wrong; it needs the weights in the archive"
)
NO_ONNX = (
    "TorchServe's BaseHandler loads ONNX but cannot run it; a handler with its own `inference` can"
)
ENVELOPE = (
    "TorchServe's base_handler takes no request as it comes; there, `service_envelope=body` in "
    "config.properties unpacks it"
)
ONLY_HERE_UNPACKED = (
    "system.extra-files: only hatch-mar's server unpacks the tarball of a handler that "
    "does not use handler_factory; TorchServe will not"
)


def note_loading(
    reading: Reading,
    handler: Handler,
    runtime: str,
    weights: Iterable[WeightsFile],
    *,
    model_path: str | None = None,
) -> None:
    """Note what stock TorchServe cannot load by itself.

    `model_path` is where the author's model-config.yaml says that the weights are, if it does.
    """
    placed = {
        file.target: file.reference is not None
        for file in weights
        if not file.at_path and not file.named_by
    }
    if handler.initialize == "inherited" and model_path is not None and not placed:
        obstacle = UNTRAINED if runtime == "eager" else NO_PATH
        reading.note_stock(f"handler.model_path: {obstacle}")
    if handler.manifest == BASE_HANDLER:
        reading.note_stock(f"handler: {ENVELOPE}")
    for reason in why_not_loaded(
        placed,
        runtime=runtime,
        initialize=handler.initialize,
        own_inference=handler.own_inference,
    ):
        reading.note_stock(reason)


def why_not_loaded(
    weights: dict[str, bool], *, runtime: str, initialize: Initialize, own_inference: bool
) -> Iterator[str]:
    """Yield why stock TorchServe cannot load a model by itself.

    Args:
        weights: Path of each file of weights in the model directory, and whether it is referenced.
        runtime: How the model is loaded.
        initialize: Whose `initialize` does it.
        own_inference: Whether the handler brings its own `inference`.
    """
    inherited = initialize == "inherited"
    for target, referenced in weights.items():
        if referenced:
            yield f"{target}: {NO_DOWNLOAD}"
        elif inherited and target.endswith(".safetensors"):
            yield f"{target}: TorchServe's BaseHandler reads no safetensors"
    if not inherited:
        return
    if runtime == "exported":
        yield "runtime: TorchServe's BaseHandler loads no exported programs"
    elif runtime == "onnx" and not own_inference:
        yield f"runtime: {NO_ONNX}"
    elif runtime == "aoti" and any(target.endswith(".pt2") for target in weights):
        yield "runtime: TorchServe's BaseHandler loads a compiled `.so`, but no compiled `.pt2`"
    elif runtime == "tensorrt" and any(target.endswith(ENGINES) for target in weights):
        yield (
            "runtime: TorchServe's BaseHandler loads no TensorRT engine, only the `.pt` that "
            "torch-tensorrt makes"
        )


def note_unpacking(
    reading: Reading, travel: Travel, plain: Iterable[Entry], packed: Iterable[Entry]
) -> None:
    """Note where stock TorchServe would not find what is in the tarball."""
    if not tuple(packed) or any(entry.name == FACTORY_FILE for entry in plain):
        return
    if not travel.imports_factory and not travel.imports_package:
        reading.note_stock(ONLY_HERE_UNPACKED)
    elif travel.before_unpacking:
        names = ", ".join(dict.fromkeys(travel.before_unpacking))
        reading.note_stock(
            f"handler: imports {names} before {FACTORY_MODULE}, which unpacks the tarball in "
            "TorchServe; import it first"
        )
