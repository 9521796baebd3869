"""`ts.context`."""

from __future__ import annotations

from hatch_mar.model.context import Context, RequestProcessor

__all__ = ["Context", "RequestProcessor"]
