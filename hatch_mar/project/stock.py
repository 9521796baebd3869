"""Where stock TorchServe cannot follow: notes for an author who serves there too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.project.baggage import FACTORY_FILE
from hatch_mar.project.travel import FACTORY_MODULE, Travel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hatch_mar.project.reading import Reading
    from hatch_mar.project.spec import Entry, Handler, Runtime, WeightsFile


def note_loading(
    reading: Reading, handler: Handler, runtime: Runtime, weights: Iterable[WeightsFile]
) -> None:
    """Note what stock TorchServe cannot load by itself."""
    for file in weights:
        if file.reference is not None:
            reading.notes.append(
                f"{file.target}: TorchServe downloads nothing; there, somebody has to put the file "
                "into the model directory"
            )
        elif handler.initialize == "inherited" and file.target.endswith(".safetensors"):
            reading.notes.append(f"{file.target}: TorchServe's BaseHandler reads no safetensors")
    if handler.initialize != "inherited":
        return
    if runtime == "exported":
        reading.notes.append("runtime: TorchServe's BaseHandler loads no exported programs")
    elif runtime == "onnx" and not handler.own_inference:
        reading.notes.append(
            "runtime: TorchServe's BaseHandler loads ONNX but cannot run it; "
            "a handler with its own `inference` can"
        )


def note_unpacking(
    reading: Reading, travel: Travel, plain: Iterable[Entry], packed: Iterable[Entry]
) -> None:
    """Note where stock TorchServe would not find what is in the tarball."""
    if not tuple(packed) or any(entry.name == FACTORY_FILE for entry in plain):
        return
    if not travel.imports_factory and not travel.imports_package:
        reading.notes.append(
            "system.extra-files: only hatch-mar's server unpacks the tarball of a handler that "
            "does not use handler_factory; TorchServe will not"
        )
    elif travel.before_unpacking:
        names = ", ".join(dict.fromkeys(travel.before_unpacking))
        reading.notes.append(
            f"handler: imports {names} before {FACTORY_MODULE}, which unpacks the tarball in "
            "TorchServe; import it first"
        )
