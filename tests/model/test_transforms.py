"""The transforms of images: equal to torchvision's to the last bit."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hatch_mar.model.handlers.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CenterCrop,
    Colour,
    Compose,
    Normalize,
    Resize,
    ToTensor,
    classify_imagenet,
)
from tests.support.images import MODES, SIZES, make_image

RECORDED = json.loads((Path(__file__).parent / "torchvision.json").read_text())
PIPELINES = {
    "imagenet": Compose(
        [Resize(256), CenterCrop(224), ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    ),
    "squared": Compose([Resize(256), CenterCrop(224), ToTensor()]),
    "tensor": Compose([ToTensor()]),
    "small": Compose([Resize((5, 7)), CenterCrop((4, 9)), ToTensor()]),
    "odd": Compose([Resize(33), CenterCrop(28), ToTensor()]),
}


def named(record: dict[str, Any]) -> str:
    width, height = record["size"]
    return f"{record['pipeline']}-{record['mode']}-{width}x{height}"


@pytest.mark.parametrize("record", RECORDED["records"], ids=named)
def test_a_tensor_is_torchvisions(record: dict[str, Any]) -> None:
    """Of every mode, and of every size: tests/record_torchvision.py has asked torchvision."""
    image = make_image(record["mode"], tuple(record["size"]))
    transform = PIPELINES[record["pipeline"]]
    if "refused" in record:
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            transform(image)
        return
    array = transform(image).numpy()
    assert (list(array.shape), str(array.dtype)) == (record["shape"], record["dtype"])
    if "bytes" in record:
        expected = np.frombuffer(base64.b64decode(record["bytes"]), record["dtype"])
        assert array.ravel().tolist() == expected.tolist()
    assert hashlib.sha256(array.tobytes()).hexdigest() == record["sha256"]


def test_what_was_recorded_covers_every_mode_and_size() -> None:
    records = RECORDED["records"]
    assert {record["mode"] for record in records} == set(MODES)
    assert {tuple(one["size"]) for one in records if one["mode"] == "RGB"} == set(SIZES)


@pytest.mark.parametrize("size", SIZES)
def test_of_coloured_images_the_default_is_torchvisions(size: tuple[int, int]) -> None:
    """`Colour`, which torchvision does not have, changes nothing of them."""
    image = make_image("RGB", size)
    assert classify_imagenet()(image).equal(PIPELINES["imagenet"](image))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_what_its_colours_are(mode: str) -> None:
    """A palette's numbers are no brightness, and no network has a channel for transparency."""
    image = make_image(mode, (300, 200))
    tensor = classify_imagenet()(image)
    assert tuple(tensor.shape) == (3, 224, 224)
    if mode not in {"I;16", "I"}:
        assert tensor.equal(PIPELINES["imagenet"](image.convert("RGB")))


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bits_keep_their_upper_half(mode: str) -> None:
    image = make_image(mode, (30, 20))
    upper = (np.asarray(image) >> 8).astype(np.uint8)
    assert np.array_equal(np.asarray(Colour()(image))[:, :, 0], upper)


def test_whole_numbers_of_more_than_sixteen_bits_are_cut_off() -> None:
    image = make_image("I", (30, 20)).point(lambda value: value * 2000)
    assert Colour()(image).mode == "RGB"


@pytest.mark.parametrize("mode", ["L", "1", "I;16", "F"])
def test_grey_may_stay_grey(mode: str) -> None:
    image = make_image(mode, (30, 20))
    assert Colour(grey=True)(image) is image


def test_arrays_are_taken_as_images_are() -> None:
    image = make_image("RGB", (30, 20))
    assert ToTensor()(np.array(image)).equal(ToTensor()(image))
    grey = make_image("L", (30, 20))
    assert ToTensor()(np.array(grey)).equal(ToTensor()(grey))


def test_a_transform_says_what_it_does() -> None:
    assert repr(classify_imagenet()) == (
        "Compose([Colour(grey=False), Resize(256), CenterCrop((224, 224)), ToTensor(), "
        "Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))])"
    )
