"""How a request becomes a prediction.

Each function sees one sample. `handler_factory` makes batches of them, moves them to the device,
and loads the weights into what `init_function` returns.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

try:
    from base_handler import handler_factory  # travels in the archive, for any server
except ModuleNotFoundError:  # in development there is no archive
    from hatch_mar import handler_factory

from digits_net.model import DigitNet
from digits_net.transforms.pixels import read_pixels

if TYPE_CHECKING:
    import torch
    from PIL import Image

NAMES: dict[str, str] = json.loads(
    Path(__file__).with_name("index_to_name.json").read_text(encoding="utf-8")
)


def init_function(width: int) -> DigitNet:
    """Build the network; its weights are loaded afterwards."""
    return DigitNet(width)


def preprocess(sample: Image.Image | list[list[float]]) -> torch.Tensor:
    """Return the network's input for one picture or one JSON array of pixels."""
    return read_pixels(sample)


def postprocess(logits: torch.Tensor) -> dict[str, int | str | float]:
    """Return the likeliest digit, its name and its probability."""
    probabilities = logits.flatten().softmax(0)
    digit = int(probabilities.argmax())
    return {
        "digit": digit,
        "name": NAMES[str(digit)],
        "probability": round(float(probabilities[digit]), 4),
    }


handler = handler_factory(
    init_function=init_function,
    preprocess_function=preprocess,
    postprocess_function=postprocess,
    width=32,
)
