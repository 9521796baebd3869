"""The `x-request-id` of every answer: a random UUID4, drawn many at a time.

`uuid.uuid4` asks the system for 16 bytes and builds an object per id: ten times the cost of what is
below, on a path that is walked once per request.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_DRAWN_AT_ONCE = 512
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""RFC 9562, section 4.1: the two highest bits of the clock sequence are 1 and 0."""


def _draw() -> Iterator[str]:
    while True:
        digits = os.urandom(16 * _DRAWN_AT_ONCE).hex()
        for at in range(0, 32 * _DRAWN_AT_ONCE, 32):
            one = digits[at : at + 32]
            yield f"{one[:8]}-{one[8:12]}-4{one[13:16]}-{_VARIANT[one[16]]}{one[17:20]}-{one[20:]}"


next_request_id = _draw().__next__
"""Return a fresh id, such as `6f1c6b1e-3b0e-4b47-9f0c-0d2b8b4d6b1f`. Not safe between threads."""
