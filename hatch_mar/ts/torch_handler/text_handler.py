"""`ts.torch_handler.text_handler`."""

from __future__ import annotations

from hatch_mar.model.handlers.text import TextHandler

__all__ = ["TextHandler"]
