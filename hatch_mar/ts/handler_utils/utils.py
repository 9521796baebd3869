"""`ts.handler_utils.utils`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hatch_mar.model.streaming import send_intermediate_predict_response

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__: Sequence[str] = ["import_class", "send_intermediate_predict_response"]


def import_class(class_name: str, module_prefix: str | None = None) -> Any:  # noqa: ANN401 - a class
    """Return the class `class_name`, of a module or of the package `module_prefix`.

    Args:
        class_name: a bare name with `module_prefix`, else `module.Class`.
        module_prefix: the module to look in.

    Raises:
        ImportError: there is no such module or class.
    """
    path = f"{module_prefix}.{class_name}" if module_prefix else class_name
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise ImportError(f"module {module!r} has no class {name!r}", name=path) from error
