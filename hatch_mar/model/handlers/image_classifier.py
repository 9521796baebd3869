"""`ImageClassifier`: what is in an image."""

# ruff: noqa: ANN401 - tensors come from a library that is loaded lazily

from __future__ import annotations

import importlib
from typing import Any

from hatch_mar.model.handlers.transforms import classify_imagenet
from hatch_mar.model.handlers.vision import VisionHandler
from hatch_mar.model.labels import map_class_to_label
from hatch_mar.model.timing import timed


class ImageClassifier(VisionHandler):
    """Answers `{label: probability}`, the most probable class first."""

    topk = 5
    """How many classes an answer has, if the network knows that many."""
    image_processing = classify_imagenet()

    def set_max_result_classes(self, topk: int) -> None:
        """Answer with `topk` classes."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """Return how many classes an answer has."""
        return self.topk

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        """Return the answers for the logits `data`, (images, classes)."""
        torch: Any = importlib.import_module("torch")
        count = min(self.topk, data.shape[1])
        probabilities, classes = torch.topk(torch.softmax(data, dim=1), count, dim=1)
        return map_class_to_label(probabilities.tolist(), self.mapping, classes.tolist())
