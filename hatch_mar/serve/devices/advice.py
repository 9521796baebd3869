"""Whether `system.maxGPUMemory` suits a model, judged by what its workers took."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hatch_mar.model.protocol import MemoryUse

_TIGHT = 0.9
_LAVISH = 0.5
_SPARE = 1.25
"""What is advised is so many times what was taken."""
ENOUGH = 100
"""After so many requests a worker's peak is taken for what the model needs."""


def advise(limit: int | None, memory: MemoryUse | None, *, answered: int) -> str:
    """Return a hint for the author; nothing if the limit suits, or there is none.

    Args:
        limit: MB that a worker may take.
        memory: What it has taken.
        answered: How many requests it has answered meanwhile.
    """
    if not limit or memory is None:
        return ""
    taken = f"system.maxGPUMemory is {limit} MB, of which it has taken {memory.reserved} MB"
    better = int(memory.reserved * _SPARE)
    if memory.reserved >= _TIGHT * limit:
        return f"{taken}: batches may find no room; raise it to {better} if the GPU has that much"
    if answered >= ENOUGH and memory.reserved <= _LAVISH * limit:
        return f"{taken} at most: {better} would do, and leave room for other workers"
    return ""
