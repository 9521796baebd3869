"""`ts.utils.util`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatch_mar.archive.modelconfig import parse_yaml
from hatch_mar.model.classes import classes_of
from hatch_mar.model.compilation import PT2Backend, check_valid_pt2_backend
from hatch_mar.model.faults import PredictionException
from hatch_mar.model.handlers.tokens import CLEANUP_REGEX
from hatch_mar.model.labels import load_label_mapping, map_class_to_label

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "CLEANUP_REGEX",
    "PT2Backend",
    "PredictionException",
    "check_valid_pt2_backend",
    "get_yaml_config",
    "list_classes_from_module",
    "load_label_mapping",
    "map_class_to_label",
]


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """Return the classes that `module` defines itself: subclasses of `parent_class` if given."""
    return classes_of(module, parent_class or object)


def get_yaml_config(yaml_file_path: str) -> Any:  # noqa: ANN401 - whatever the file says
    """Return what is in a file of YAML.

    Raises:
        HatchMarError: it is none.
    """
    path = Path(yaml_file_path)
    return parse_yaml(path.read_bytes(), path.name)
