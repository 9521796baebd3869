"""`ts.handler_utils.micro_batching`."""

from __future__ import annotations

from hatch_mar.model.micro_batching import MicroBatching

__all__ = ["MicroBatching"]
