"""`ts.torch_handler.dali_image_classifier`."""

from __future__ import annotations

from hatch_mar.model.handlers.dali_image_classifier import DALIImageClassifier

__all__ = ["DALIImageClassifier"]
