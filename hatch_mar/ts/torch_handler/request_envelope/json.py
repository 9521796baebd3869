"""`ts.torch_handler.request_envelope.json`."""

from __future__ import annotations

from hatch_mar.model.envelopes import JSONEnvelope

__all__ = ["JSONEnvelope"]
