"""`index_to_name.json`, and labels for classes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.model.labels import load_label_mapping, map_class_to_label

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"0": "cat", "1": "dog"}, {"0": "cat", "1": "dog"}),
        ({"0": ["n02123045", "tabby"]}, {"0": "tabby"}),
        ({"object_type_names": ["person", "car"]}, {"0": "person", "1": "car"}),
    ],
)
def test_labels_are_read(tmp_path: Path, written: Any, read: dict[str, str]) -> None:
    (tmp_path / "index_to_name.json").write_text(json.dumps(written))
    assert load_label_mapping(tmp_path / "index_to_name.json") == read


def test_without_the_file_there_are_none(tmp_path: Path) -> None:
    assert load_label_mapping(tmp_path / "index_to_name.json") is None


@pytest.mark.parametrize(
    ("written", "said"), [([1], "must be an object"), ({"3": 4}, "3: must be a label")]
)
def test_anything_else_is_refused(tmp_path: Path, written: Any, said: str) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=f"labels.json: {said}"):
        load_label_mapping(tmp_path / "labels.json")


def test_probabilities_get_their_labels() -> None:
    labelled = map_class_to_label([[0.9, 0.1]], {"4": "cat", "7": "dog"}, [[7, 4]])
    assert labelled == [{"dog": 0.9, "cat": 0.1}]


def test_without_labels_classes_have_numbers() -> None:
    assert map_class_to_label([[0.9, 0.1]]) == [{"0": 0.9, "1": 0.1}]
