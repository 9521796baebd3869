"""`VisionHandler`: rows become images, images a batch of tensors."""

# ruff: noqa: ANN401 - images and tensors come from libraries that are loaded lazily

from __future__ import annotations

import base64
import importlib
import io
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hatch_mar.model.base_handler import BaseHandler
from hatch_mar.model.handlers.explanations import STEPS, load_captum
from hatch_mar.model.timing import timed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hatch_mar.model.context import Context


class VisionHandler(BaseHandler):
    """Base of the handlers of images.

    A row's `data` or `body` is an encoded image, its Base64 as text, or the tensor's numbers.
    """

    image_processing: Callable[[Any], Any]
    """Makes a tensor of a Pillow image; of a class or of an instance, and not a method."""

    def initialize(self, context: Context) -> None:
        """Load the model; lift Pillow's limit of pixels if the server's settings say so."""
        super().initialize(context)
        if not context.system_properties.get("limit_max_image_pixels"):
            pillow: Any = importlib.import_module("PIL.Image")
            pillow.MAX_IMAGE_PIXELS = None

    @cached_property
    def ig(self) -> Any:
        """Captum's IntegratedGradients of the model."""
        return load_captum().IntegratedGradients(self.model)

    @timed
    def preprocess(self, data: Sequence[Mapping[str, Any]]) -> Any:
        """Return a batch of one tensor per row."""
        return self._collate([self._read_image(row) for row in data])

    def _read_image(self, row: Mapping[str, Any]) -> Any:
        value = row.get("data") or row.get("body")
        if isinstance(value, str):
            value = base64.b64decode(value)
        if isinstance(value, bytes | bytearray):
            with importlib.import_module("PIL.Image").open(io.BytesIO(value)) as image:
                return self.image_processing(image)
        if hasattr(value, "mode") and hasattr(value, "getbands"):  # decoded by the server
            return self.image_processing(value)
        return importlib.import_module("torch").FloatTensor(value)

    def _collate(self, images: list[Any]) -> Any:
        return importlib.import_module("torch").stack(images).to(self.device)

    def get_insights(self, tensor_data: Any, _: Any, target: Any = 0) -> list[Any]:
        """Return per image how much each of its numbers speaks for class `target`."""
        explained: list[Any] = self.ig.attribute(tensor_data, target=target, n_steps=STEPS).tolist()
        return explained
