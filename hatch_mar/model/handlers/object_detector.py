"""`ObjectDetector`: what is where in an image."""

# ruff: noqa: ANN401 - tensors come from a library that is loaded lazily

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hatch_mar.model.handlers.transforms import Colour, Compose, ToTensor
from hatch_mar.model.handlers.vision import VisionHandler
from hatch_mar.model.labels import map_class_to_label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ObjectDetector(VisionHandler):
    """Answers a list of `{label: [x1, y1, x2, y2], "score": probability}`, as the network does."""

    threshold = 0.5
    """The least score that is told."""
    image_processing = Compose([Colour(grey=True), ToTensor()])

    def _collate(self, images: list[Any]) -> Any:
        """Return a batch; a list, as torchvision's detectors take one, if the sizes differ."""
        if len({image.shape for image in images}) == 1:
            return super()._collate(images)
        return [image.to(self.device) for image in images]

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what the network finds: per image `boxes`, `labels` and `scores`."""
        if isinstance(data, list):
            return super().inference((data,), *args, **kwargs)
        return super().inference(data, *args, **kwargs)

    def postprocess(self, data: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the answers for what `inference` found."""
        return [self._describe(found) for found in data]

    def _describe(self, found: Mapping[str, Any]) -> list[dict[str, Any]]:
        told = found["scores"] >= self.threshold
        columns = (found[key][told].tolist() for key in ("labels", "boxes", "scores"))
        objects: list[dict[str, Any]] = []
        for number, box, score in zip(*columns, strict=True):
            (labelled,) = map_class_to_label([[box]], self.mapping, [[number]])
            objects.append({**labelled, "score": score})
        return objects
