"""`ImageSegmenter`: to which class each pixel of an image belongs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hatch_mar.model.handlers.transforms import classify_imagenet
from hatch_mar.model.handlers.vision import VisionHandler

if TYPE_CHECKING:
    from collections.abc import Mapping


class ImageSegmenter(VisionHandler):
    """Answers per pixel, row by row, `[class, probability]` of its most probable class."""

    image_processing = classify_imagenet()

    def postprocess(self, data: Mapping[str, Any]) -> list[Any]:
        """Return the answers for the logits `data["out"]`, (images, classes, height, width)."""
        torch: Any = importlib.import_module("torch")
        best = torch.softmax(data["out"], dim=1).max(dim=1)
        pairs = torch.stack([best.indices.to(best.values.dtype), best.values], dim=3)
        answers: list[Any] = pairs.tolist()
        return answers
