"""Images made of arithmetic: the same bytes on every machine, in every mode that Pillow reads."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

SIZES = (
    (300, 200),
    (200, 300),
    (256, 256),
    (257, 256),
    (223, 225),
    (1, 1),
    (2, 500),
    (500, 3),
    (641, 427),
    (1001, 333),
)
"""Width and height: landscape, portrait, square, odd, tiny, thin."""
MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I", "F")


def make_image(mode: str, size: tuple[int, int]) -> Image.Image:
    """Return an image of `mode` in which no two neighbours are alike."""
    colours = Image.fromarray(_pattern(*size))
    if mode == "P":
        return colours.quantize(17)
    if mode == "RGBA":
        colours.putalpha(Image.fromarray(_pattern(*size)[:, :, 1]))
        return colours
    if mode in {"I;16", "I", "F"}:
        wide = _pattern(*size).astype(np.int64)
        values = (wide[:, :, 0] << 8) | wide[:, :, 2]
        kinds: dict[str, Any] = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        return Image.fromarray(values.astype(kinds[mode]))
    return colours.convert(mode)


def _pattern(width: int, height: int) -> Any:
    """Return bytes (height, width, 3): waves and steps of different lengths."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    channels = (x * x // 7 + 3 * y, 5 * x + y * y // 11, (x * y) // 3 + 13 * x + 29 * y)
    return np.stack([channel % 256 for channel in channels], axis=2).astype(np.uint8)
