"""`ts.handler_utils.timer`."""

from __future__ import annotations

from hatch_mar.model.timing import timed

__all__ = ["timed"]
