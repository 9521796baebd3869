"""`ts.torch_handler.dali_handler`."""

from __future__ import annotations

from hatch_mar.model.handlers.dali_image_classifier import DALIImageClassifier as DALIHandler

__all__ = ["DALIHandler"]
