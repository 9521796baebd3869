"""`ts.torch_handler.image_segmenter`."""

from __future__ import annotations

from hatch_mar.model.handlers.image_segmenter import ImageSegmenter

__all__ = ["ImageSegmenter"]
