"""`ts.torch_handler.request_envelope.base`."""

from __future__ import annotations

from hatch_mar.model.envelopes import BaseEnvelope

__all__ = ["BaseEnvelope"]
