"""`ts.torch_handler.image_classifier`."""

from __future__ import annotations

from hatch_mar.model.handlers.image_classifier import ImageClassifier

__all__ = ["ImageClassifier"]
