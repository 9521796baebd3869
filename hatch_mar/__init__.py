"""Ship PyTorch and ONNX models the way Python ships everything else.

Two halves meet at an archive: the workshop (`project`, `archive`, `plugin`) builds it, the shop
(`model`, `serve`, `api`) serves it. Importing this package loads neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hatch_mar.model.factory import handler_factory

__all__ = ["__version__", "handler_factory"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module attribute is depends on its name
    """Load `handler_factory` when it is first asked for (PEP 562): a build must not pay for it."""
    if name == "handler_factory":
        from hatch_mar.model.factory import handler_factory  # noqa: PLC0415

        return handler_factory
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
