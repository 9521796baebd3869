"""The model of a project that began with none: it names colours, and needs no training.

Which of some known colours is nearest is a linear question: with scores `2k c.x - k |c|^2` the
softmax falls off with the squared distance of `x` from each colour `c`, `k` saying how steeply.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "brown": (139, 69, 19),
    "green": (0, 160, 0),
    "grey": (128, 128, 128),
    "orange": (255, 140, 0),
    "pink": (255, 150, 190),
    "purple": (128, 0, 160),
    "red": (255, 0, 0),
    "turquoise": (64, 208, 208),
    "white": (255, 255, 255),
    "yellow": (255, 240, 0),
}
STEEPNESS = 12.0
QUESTION = (255, 128, 0)


def make_weights() -> bytes:
    """Return the network's state_dict as a safetensors file: length, JSON header, numbers."""
    points = [[part / 255 for part in colour] for colour in COLOURS.values()]
    weight = [2 * STEEPNESS * part for point in points for part in point]
    bias = [-STEEPNESS * sum(part * part for part in point) for point in points]
    return _to_safetensors(
        {"nearness.bias": ([len(points)], bias), "nearness.weight": ([len(points), 3], weight)}
    )


def _to_safetensors(tensors: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> bytes:
    header = {}
    numbers = b""
    for name, (shape, values) in tensors.items():
        packed = struct.pack(f"<{len(values)}f", *values)
        offsets = [len(numbers), len(numbers) + len(packed)]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
        numbers += packed
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    return struct.pack("<Q", len(text)) + text + numbers


def name_colour(rgb: Sequence[int]) -> dict[str, str | float]:
    """Return what the handler answers to `rgb`, reckoned without torch."""
    nearness = {
        name: math.exp(
            -STEEPNESS * sum(((a - b) / 255) ** 2 for a, b in zip(rgb, colour, strict=True))
        )
        for name, colour in COLOURS.items()
    }
    best = max(nearness, key=nearness.__getitem__)
    return {"colour": best, "probability": round(nearness[best] / sum(nearness.values()), 4)}
