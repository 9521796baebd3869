"""`ts.torch_handler.request_envelope.body`."""

from __future__ import annotations

from hatch_mar.model.envelopes import BodyEnvelope

__all__ = ["BodyEnvelope"]
