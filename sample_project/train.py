"""Train the classifier, and write what the project ships: weights, examples, images to try.

    pip install --group train .
    python train.py

The data are scikit-learn's bundled digits: 1,797 images of 8 x 8 pixels with values from 0 to 16.
Four fifths are trained on; the accuracy printed is that of the fifth the network never saw.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from digits_net.model import DigitNet
from digits_net.transforms.pixels import INK, read_pixels
from handler import postprocess
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).resolve().parent
SEED = 20
EPOCHS = 40
BATCH = 64
REQUIRED_ACCURACY = 0.98
IMAGES_PER_DIGIT = 3
SCALE = 16
"""The shipped PNGs are enlarged this many times, so that a person sees the digit too."""


def main() -> None:
    """Train, evaluate on the held-out fifth, and write the files."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    pixels, digits = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8).astype(int)
    train, held_out = train_test_split(
        np.arange(len(digits)), test_size=0.2, random_state=SEED, stratify=digits
    )
    inputs = torch.stack([read_pixels(image.tolist()) for image in images])
    labels = torch.tensor(digits)
    network = DigitNet()
    fit(network, inputs[train], labels[train])
    torch.set_grad_enabled(False)
    right = int((network(inputs[held_out]).argmax(1) == labels[held_out]).sum())
    accuracy = right / len(held_out)
    print(f"{right} of {len(held_out)} held-out images right: {accuracy:.2%}")
    if accuracy < REQUIRED_ACCURACY:
        sys.exit(f"below {REQUIRED_ACCURACY:.0%}: nothing written")
    torch.save(network.state_dict(), HERE / "weights" / "digits.pt")
    to_try = {digit: held_out[digits[held_out] == digit][:IMAGES_PER_DIGIT] for digit in range(10)}
    for digit, indices in to_try.items():
        for index in indices:
            picture(images[index]).save(HERE / "images" / f"{digit}-{index:04}.png")
    write_examples(network, {digit: images[indices[0]] for digit, indices in to_try.items()})


def fit(network: DigitNet, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    """Train `network` in place; each epoch sees every image, shifted by up to one pixel."""
    steps = EPOCHS * -(-len(labels) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.01, total_steps=steps)
    network.train()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(BATCH):
            optimiser.zero_grad()
            logits = network(shift(inputs[chosen]))
            nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=0.02).backward()
            optimiser.step()
            schedule.step()
    network.eval()


def shift(images: torch.Tensor) -> torch.Tensor:
    """Return `images` moved together by -1, 0 or 1 pixel each way, filled up with paper."""
    down, right = torch.randint(0, 3, (2,)).tolist()
    return nn.functional.pad(images, (1, 1, 1, 1))[..., down : down + 8, right : right + 8]


def write_examples(network: DigitNet, images: dict[int, np.ndarray]) -> None:
    """Write the golden examples: two pictures, one array of pixels, and this network's answers."""
    folder = HERE / "examples"
    for digit, name in ((7, "seven"), (4, "four")):
        image = picture(images[digit])
        image.save(folder / f"{name}.png")
        write_answer(folder / f"{name}.json", network, read_pixels(image))
    rows = images[2].tolist()
    text = ",\n ".join(json.dumps(row) for row in rows)
    (folder / "pixels.json").write_text(f"[{text}]\n", encoding="utf-8")
    write_answer(folder / "pixels.answer.json", network, read_pixels(rows))


def write_answer(path: Path, network: DigitNet, pixels: torch.Tensor) -> None:
    """Write what the served model must answer to `pixels`."""
    answer = postprocess(network(pixels.unsqueeze(0)))
    path.write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")


def picture(pixels: np.ndarray) -> Image.Image:
    """Return an enlarged grey image of 8 x 8 pixels from 0 to 16."""
    grey = np.rint(pixels * 255 / INK).astype(np.uint8)
    return Image.fromarray(grey).resize((8 * SCALE, 8 * SCALE), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
