"""What runs where: each way to ship a model, and what keeps stock TorchServe from serving it.

The contract tests hold every row against the real TorchServe and against the notes that a project
of that kind gets; the documentation prints it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hatch_mar.project.stock import ENVELOPE, NO_DOWNLOAD, NO_ONNX, NO_PATH, UNTRAINED

if TYPE_CHECKING:
    from collections.abc import Iterator

Place = Literal["inside", "path", "reference"]
"""Where the weights are: in the archive, at a path of the server's disk, or elsewhere under their
digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to ship a model."""

    model: str
    weights: Place
    obstacles: tuple[str, ...] = ()
    """Why stock TorchServe cannot serve it; nothing if it can."""
    setting: str = ""
    """What stock TorchServe has to be told first."""


MODELS = {
    "eager": "`BaseHandler`, eager",
    "torchscript": "`BaseHandler`, TorchScript",
    "onnx": "`BaseHandler`, ONNX",
    "onnx-inference": "`BaseHandler` with its own `inference`, ONNX",
    "class": "a class with its own `initialize`",
    "function": "a function",
    "default": "`base_handler`, by its name",
    "factory": "`handler_factory`",
}
"""Every kind of model, and what a person calls it."""


def _ways(model: str, *always: str, path: str = "", setting: str = "") -> Iterator[Way]:
    """Yield the row of `model`: what is always in the way, and what is for weights at a path."""
    added: dict[Place, str] = {"inside": "", "path": path, "reference": NO_DOWNLOAD}
    for place, obstacle in added.items():
        obstacles = (*always, obstacle) if obstacle else always
        yield Way(model=model, weights=place, obstacles=obstacles, setting=setting)


WAYS = (
    *_ways("eager", path=UNTRAINED),
    *_ways("torchscript", path=NO_PATH),
    *_ways("onnx", NO_ONNX, path=NO_PATH),
    *_ways("onnx-inference", path=NO_PATH),
    *_ways("class"),
    *_ways("function"),
    *_ways("default", path=NO_PATH, setting=ENVELOPE),
    *_ways("factory"),
)
