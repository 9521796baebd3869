"""How long to wait before a worker that died is started again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def backoff() -> Iterator[int]:
    """Yield the seconds before each new try, as TorchServe does: 0, 1, 1, 2, 3, 5, 8, ..."""
    now, after = 0, 1
    while True:
        yield now
        now, after = after, now + after
