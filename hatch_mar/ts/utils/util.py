"""`ts.utils.util`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.model.classes import classes_of
from hatch_mar.model.faults import PredictionException
from hatch_mar.model.labels import load_label_mapping, map_class_to_label

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "PredictionException",
    "list_classes_from_module",
    "load_label_mapping",
    "map_class_to_label",
]


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """Return the classes that `module` defines itself: subclasses of `parent_class` if given."""
    return classes_of(module, parent_class or object)
