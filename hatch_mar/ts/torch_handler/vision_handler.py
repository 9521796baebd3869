"""`ts.torch_handler.vision_handler`."""

from __future__ import annotations

from hatch_mar.model.handlers.vision import VisionHandler

__all__ = ["VisionHandler"]
