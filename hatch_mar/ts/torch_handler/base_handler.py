"""`ts.torch_handler.base_handler`."""

from __future__ import annotations

from hatch_mar.model.base_handler import BaseHandler

__all__ = ["BaseHandler"]
