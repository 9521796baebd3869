"""Pixels in, tensor out."""

from __future__ import annotations

import torch
from PIL import Image

SIDE = 8
INK = 16
"""The blackest value in scikit-learn's digits, whose JSON form we accept."""


def read_pixels(sample: Image.Image | list[list[float]]) -> torch.Tensor:
    """Return a tensor of shape (1, 8, 8): 0 is paper, 1 is ink.

    Args:
        sample: a picture of one digit, light on dark, of any size; or eight rows of eight numbers
            from 0 to 16, as in scikit-learn's data set.

    Raises:
        ValueError: the numbers do not form eight rows of eight.
    """
    if isinstance(sample, Image.Image):
        return _from_image(sample)
    try:
        pixels = torch.tensor(sample, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected an image or {SIDE} rows of {SIDE} numbers: {error}") from error
    if pixels.shape != (SIDE, SIDE):
        raise ValueError(f"expected {SIDE} rows of {SIDE} numbers, got {tuple(pixels.shape)}")
    return pixels.clamp(0, INK).div(INK).unsqueeze(0)


def _from_image(image: Image.Image) -> torch.Tensor:
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = torch.frombuffer(bytearray(grey.tobytes()), dtype=torch.uint8)
    return values.to(torch.float32).div(255).reshape(1, SIDE, SIDE)
