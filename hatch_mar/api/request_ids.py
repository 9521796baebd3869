"""The `x-request-id` of every answer: a random UUID4, drawn many at a time.

`uuid.uuid4` asks the system for 16 bytes and builds an object per id: twenty times the cost of what
is below, on a path that is walked once per request.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_DRAWN_AT_ONCE = 512
_SHAPE = "xxxxxxxx-xxxx-4xxx-vxxx-xxxxxxxxxxxx"
_VARIANT = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)
"""RFC 9562, section 4.1: the two highest bits of the clock sequence are 1 and 0."""


def _draw() -> Iterator[str]:
    size = len(_SHAPE)
    while True:
        digits = os.urandom(16 * _DRAWN_AT_ONCE).hex().encode()
        text = bytearray(_SHAPE.encode() * _DRAWN_AT_ONCE)
        # All ids have their digits in the same places: one slice sets a place in every one of them.
        for place, (kind, column) in enumerate(_columns()):
            if kind == "x":
                text[place::size] = digits[column::32]
            elif kind == "v":
                text[place::size] = digits[column::32].translate(_VARIANT)
        ids = text.decode()
        for at in range(0, len(ids), size):
            yield ids[at : at + size]


def _columns() -> Iterator[tuple[str, int]]:
    """Yield, for each place of the shape, what belongs there and which digit it is."""
    column = 0
    for kind in _SHAPE:
        yield kind, column
        column += kind != "-"


next_request_id = _draw().__next__
"""Return a fresh id, such as `6f1c6b1e-3b0e-4b47-9f0c-0d2b8b4d6b1f`. Not safe between threads."""
