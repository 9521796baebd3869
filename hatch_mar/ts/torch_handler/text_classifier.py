"""`ts.torch_handler.text_classifier`."""

from __future__ import annotations

from hatch_mar.model.handlers.text_classifier import TextClassifier

__all__ = ["TextClassifier"]
