"""`index_to_name.json`: what a model's class numbers are called."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAPPING_FILE = "index_to_name.json"

logger = logging.getLogger("hatch_mar.model")


def load_label_mapping(path: str | Path) -> dict[str, str] | None:
    """Return the label of each class number, which is a string as in JSON; None without a file.

    A label may be given as a list (its last element counts, as in ImageNet's lists), and a detector
    may give all names in order under `object_type_names`.

    Raises:
        ValueError: the file says something else.
    """
    if not Path(path).is_file():
        logger.info("%s is not in the archive: answers name classes by number", Path(path).name)
        return None
    raw = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(raw, dict):
        raise ValueError(f"{Path(path).name}: must be an object: class number to label")  # noqa: TRY004
    names = raw.get("object_type_names")
    if isinstance(names, list):
        return {str(index): str(name) for index, name in enumerate(names)}
    return {str(key): _read_label(value, key, Path(path).name) for key, value in raw.items()}


def _read_label(value: Any, key: str, file: str) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, list) and value:
        value = value[-1]
    if not isinstance(value, str):
        raise ValueError(f"{file}: {key}: must be a label, or a list that ends with one")  # noqa: TRY004
    return value


def map_class_to_label(
    probs: Sequence[Sequence[float]],
    mapping: Mapping[str, str] | None = None,
    lbl_classes: Sequence[Sequence[Any]] | None = None,
) -> list[dict[str, float]]:
    """Return per sample its probabilities by label, in the order given.

    Args:
        probs: probabilities, one list per sample.
        mapping: label of each class number, as `load_label_mapping` returns it.
        lbl_classes: class numbers that belong to `probs`; by default their positions. What has no
            partner on the other side is left out.

    Raises:
        TypeError: `probs` is no list, or `mapping` no dict.
        KeyError: a class has no label.
    """
    if not isinstance(probs, list):
        raise TypeError("Convert classes to list before doing mapping")
    if mapping is not None and not isinstance(mapping, dict):
        raise TypeError("Mapping must be a dict")
    results = []
    for row, values in enumerate(probs):
        classes = range(len(values)) if lbl_classes is None else lbl_classes[row]
        names = (str(one) for one in classes)
        labels = (name if mapping is None else mapping[name] for name in names)
        results.append(dict(zip(labels, values, strict=False)))
    return results
