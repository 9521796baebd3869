"""`ts.torch_handler.request_envelope.kservev2`."""

from __future__ import annotations

from hatch_mar.model.envelopes import KServev2Envelope

__all__ = ["KServev2Envelope"]
