"""The network of the GPU benchmark: images come as bytes, and become numbers where it is."""

from __future__ import annotations

from typing import Any

import torch
import works

SHOWN = 10
"""How many of the scores of an image are its answer."""


class ImageModel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = works.make_resnet()

    def forward(self, pixels: Any) -> Any:
        """Return the first scores of [request, image, height, width, channel] in uint8."""
        count, images = pixels.shape[:2]
        scores = self.network(pixels.flatten(0, 1).permute(0, 3, 1, 2).float() / 255)
        return scores.view(count, images, -1)[:, :, :SHOWN].float()


def read_pixels(bodies: list[Any]) -> Any:
    """Return the pixels of requests that have as many images each."""
    pixels = torch.frombuffer(bytearray().join(bodies), dtype=torch.uint8)
    return pixels.view(len(bodies), -1, works.SIDE, works.SIDE, 3)


def write_scores(scores: Any) -> list[bytes]:
    return [one.tobytes() for one in scores.cpu().numpy()]
