"""The network: three convolutions and a linear layer, 58,474 parameters."""

from __future__ import annotations

import torch
from torch import nn


class DigitNet(nn.Module):
    """Grey images of 8 x 8 pixels to ten logits."""

    def __init__(self, width: int = 32) -> None:
        """Build an untrained network; `width` is the number of channels of the first layer."""
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, width),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            *_block(2 * width, 2 * width),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classify = nn.Linear(2 * width * 2 * 2, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (N, 10) for images of shape (N, 1, 8, 8), values 0 to 1."""
        logits: torch.Tensor = self.classify(self.features(images))
        return logits


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
