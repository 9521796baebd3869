"""What a GPU does for a script: batches of images from memory, their scores back, in a loop.

It takes one JSON object on its standard input: `device`, `sizes`, `modes` and `seconds`; and it
prints another: the device's `name`, the images a second by mode and size, and the scores of the
images in `bodies`, in base64.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import image_model
import torch
import works

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS_TO_WARM = 5


def main() -> None:
    order = json.load(sys.stdin)
    device = torch.device(order["device"])
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} finds no GPU that it can use")
    rates: dict[str, dict[int, float]] = {}
    with torch.inference_mode():
        for mode in order["modes"]:
            rates[mode] = {}
            for size in order["sizes"]:
                run = open_mode(mode, device, size)
                rates[mode][size] = measure(run, device, size, order["seconds"])
        eager = open_mode("eager", device, 1)
        bodies = [Path(path).read_bytes() for path in order["bodies"]]
        scores = [image_model.write_scores(eager(image_model.read_pixels([one]))) for one in bodies]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    answers = [base64.b64encode(one[0]).decode() for one in scores]
    found = {"name": name, "torch": torch.__version__, "rates": rates}
    print(json.dumps({**found, "answers": answers}))


def open_mode(mode: str, device: torch.device, size: int) -> Callable[[Any], Any]:
    """Return what takes pixels in the host's memory and returns scores there."""
    model: Any = image_model.ImageModel().to(device).eval()
    if mode == "graphs" and device.type == "cuda":
        return capture(model, device, size)
    if mode == "compile":
        model = torch.compile(model)
    if mode == "bfloat16":
        model = model.to(memory_format=torch.channels_last)

    def run(pixels: Any) -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=mode == "bfloat16"):
            return model(pixels.to(device)).cpu()

    return run


def capture(model: Any, device: torch.device, size: int) -> Callable[[Any], Any]:
    """Capture `model` as a graph for one batch of `size` images."""
    pixels = torch.zeros((1, size, works.SIDE, works.SIDE, 3), dtype=torch.uint8, device=device)
    beside = torch.cuda.Stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(3):
            model(pixels)
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = model(pixels)

    def run(batch: Any) -> Any:
        pixels.copy_(batch)
        graph.replay()
        return scores.cpu()

    return run


def measure(run: Callable[[Any], Any], device: torch.device, size: int, seconds: float) -> float:
    """Return the images a second in batches of `size`; every batch waits for its scores."""
    batch = torch.randint(0, 256, (1, size, works.SIDE, works.SIDE, 3), dtype=torch.uint8)
    if device.type == "cuda":
        batch = batch.pin_memory()
    for _ in range(ROUNDS_TO_WARM):
        run(batch)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    done, began = 0, time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        run(batch)
        done += size
    return done / (now - began)


if __name__ == "__main__":
    main()
