"""`ts.torch_handler.object_detector`."""

from __future__ import annotations

from hatch_mar.model.handlers.object_detector import ObjectDetector

__all__ = ["ObjectDetector"]
