"""Which classes a module defines: how TorchServe finds handlers and models."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def classes_of(module: ModuleType, base: type = object) -> list[type]:
    """Return the subclasses of `base` that `module` defines itself, in the order it does."""
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and issubclass(value, base)
    ]
