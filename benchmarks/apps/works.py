"""What the handlers of all servers do with a batch, so that each of them does the very same.

A work takes the decoded bodies of a batch and returns an answer for each. A task is a work at a
batch size, such as `json-32`: `open_work` gives the work of a task, which counts its batches where
`BENCHMARK_TALLY` says. `BENCHMARK_TORCH` is where torch is, for a server whose own environment has
none.
"""

from __future__ import annotations

import base64
import mmap
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[list[Any]], list[Any]]

sys.path += filter(None, [os.environ.get("BENCHMARK_TORCH")])

TASKS = os.environ.get("BENCHMARK_TASKS", "").split()
"""Which tasks a server has that cannot be told in another way."""
DEVICE = os.environ.get("BENCHMARK_DEVICE", "cpu")
"""Where the networks of `pixels` and `encoded` are."""
WAIT_MS = 5
"""How long a server that waits for fuller batches may do so."""
FIXED_SECONDS, SECONDS_PER_ITEM = 0.005, 0.002
"""What a batch of `sleep` takes."""
MOST = 512
INPUTS, HIDDEN, OUTPUTS = 784, 256, 10
SIDE = 224
BEST = 5


def batch_size(task: str) -> int:
    return int(task.rpartition("-")[2])


def takes_json(task: str) -> bool:
    """Return whether bodies are JSON, and not bytes."""
    return task.rpartition("-")[0] in ("json", "sleep", "encoded")


def gives_json(task: str) -> bool:
    return task.rpartition("-")[0] in ("json", "sleep", "image", "encoded")


def open_work(task: str) -> Work:
    """Return the work of `task`, ready to do."""
    do = _WORKS[task.rpartition("-")[0]]()
    directory = os.environ.get("BENCHMARK_TALLY")
    if not directory:
        return do
    with (Path(directory) / task).open("w+b") as file:
        file.truncate(8 * (MOST + 1))
        counts = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    def count_and_do(bodies: list[Any]) -> list[Any]:
        counts[len(bodies)] += 1
        return do(bodies)

    return count_and_do


def make_small() -> Any:
    """Return the network of 784, 256 and 10 units, its weights always the same."""
    import torch

    torch.manual_seed(0)
    layers = (torch.nn.Linear(INPUTS, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, OUTPUTS))
    return torch.nn.Sequential(*layers).eval()


def make_resnet() -> Any:
    """Return a network of ResNet-18's shape, its weights always the same."""
    import torch
    from torch import nn

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, inside: int, outside: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outside),
                nn.ReLU(inplace=True),
                nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
                nn.BatchNorm2d(outside),
            )
            self.short: Any = nn.Identity()
            if stride != 1 or inside != outside:
                narrow = nn.Conv2d(inside, outside, 1, stride, bias=False)
                self.short = nn.Sequential(narrow, nn.BatchNorm2d(outside))

        def forward(self, x: Any) -> Any:
            return torch.relu(self.body(x) + self.short(x))

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    for inside, outside, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [Block(inside, outside, stride), Block(outside, outside, 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*layers).eval()


def _open_json() -> Work:
    import torch

    network = make_small()

    def do(bodies: list[Any]) -> list[Any]:
        with torch.inference_mode():
            rows: list[Any] = network(torch.tensor(bodies)).tolist()
        return rows

    return do


def _open_raw() -> Work:
    import torch

    network = make_small()

    def do(bodies: list[Any]) -> list[Any]:
        numbers = torch.frombuffer(bytearray().join(bodies), dtype=torch.float32)
        with torch.inference_mode():
            rows = network(numbers.view(-1, INPUTS)).numpy()
        return [row.tobytes() for row in rows]

    return do


def _open_image() -> Work:
    import torch

    network = make_resnet()

    def do(bodies: list[Any]) -> list[Any]:
        pixels = torch.frombuffer(bytearray().join(bodies), dtype=torch.uint8)
        with torch.inference_mode():
            images = pixels.view(-1, SIDE, SIDE, 3).permute(0, 3, 1, 2).float() / 255
            best = torch.softmax(network(images), 1).topk(BEST)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [dict(zip(map(str, names), shares, strict=True)) for names, shares in pairs]

    return do


def _open_pixels() -> Work:
    import torch
    from image_model import (  # type: ignore[import-not-found]
        ImageModel,
        read_pixels,
        write_scores,
    )

    model = ImageModel().to(DEVICE).eval()

    def do(bodies: list[Any]) -> list[Any]:
        with torch.inference_mode():
            return list(write_scores(model(read_pixels(bodies).to(DEVICE))))

    return do


def _open_encoded() -> Work:
    """Return what does the same with pixels that came as text, since only JSON can come."""
    do = _open_pixels()

    def decode_and_do(bodies: list[Any]) -> list[Any]:
        answers = do([base64.b64decode(body["pixels"]) for body in bodies])
        return [{"scores": base64.b64encode(answer).decode()} for answer in answers]

    return decode_and_do


def _open_noop() -> Work:
    return lambda bodies: [b"ok"] * len(bodies)


def _open_sleep() -> Work:
    def do(bodies: list[Any]) -> list[Any]:
        time.sleep(FIXED_SECONDS + SECONDS_PER_ITEM * len(bodies))
        return bodies

    return do


def _open_echo() -> Work:
    return lambda bodies: bodies


_WORKS = {
    "json": _open_json,
    "raw": _open_raw,
    "image": _open_image,
    "pixels": _open_pixels,
    "encoded": _open_encoded,
    "noop": _open_noop,
    "sleep": _open_sleep,
    "bytes": _open_echo,
}
