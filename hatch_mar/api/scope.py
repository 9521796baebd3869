"""What our own parts add to an ASGI scope for each other to read."""

from __future__ import annotations

HEADERS_AS_SENT = "hatch_mar.headers"
"""Key in `extensions`: `{"raw": [(name, value), ...]}`, names in the case in which they came.

ASGI has them in lower case, but a handler may look them up as the client wrote them.
Absent under a server that is not ours.
"""
REQUEST_ID = "hatch_mar.request_id"
"""The id that the answer's `x-request-id` will carry."""
TARGET = "hatch_mar.target"
"""The `hatch_mar.api.targets.Target` of a prediction."""
