"""`ts.torch_handler.request_envelope.kserve`."""

from __future__ import annotations

from hatch_mar.model.envelopes import KServeEnvelope

__all__ = ["KServeEnvelope"]
