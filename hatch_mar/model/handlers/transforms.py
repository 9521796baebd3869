"""What happens to an image before a network sees it: torchvision's transforms, without it.

The results equal those of `torchvision.transforms` (0.29) on Pillow images to the last bit: they
come from the same calls of Pillow, then the same operations on the tensor, in the same order. A
handler's own `image_processing` may be any callable that takes a Pillow image.
"""

# ruff: noqa: ANN401 - images and tensors come from libraries that are loaded lazily

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of the channels of ImageNet's training set, red first, in the range 0 to 1."""

GREY = frozenset({"1", "L", "I", "F"})
SIXTEEN_BITS = 1 << 16


class Compose:
    """Transforms applied one after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        """Apply `transforms` in this order; the list may be changed later."""
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        """Return what the last transform makes of `image`."""
        for transform in self.transforms:
            image = transform(image)
        return image

    def __repr__(self) -> str:
        """Show every step."""
        return f"Compose({self.transforms!r})"


class Colour:
    """Makes red, green and blue of palettes, transparency, print colours and 16 bits.

    Without it a network gets a palette's numbers for brightness, or a channel too many.
    """

    def __init__(self, *, grey: bool = False) -> None:
        """Leave images without colour as they are if `grey`."""
        self.grey = grey

    def __call__(self, image: Any) -> Any:
        """Return `image`, or a copy of it in the mode `RGB`; transparency is dropped."""
        if image.mode == "RGB" or (self.grey and is_grey(image)):
            return image
        return to_eight_bits(image).convert("RGB")

    def __repr__(self) -> str:
        """Show the option."""
        return f"Colour(grey={self.grey})"


def is_grey(image: Any) -> bool:
    """Tell whether `image` has one channel, of brightness."""
    return image.mode in GREY or image.mode.startswith("I;16")


def to_eight_bits(image: Any) -> Any:
    """Return `image`; one of 16 bits with the upper half of each, instead of cut off at 255."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        np: Any = importlib.import_module("numpy")
        values = np.asarray(image)
        if values.max(initial=0) < SIXTEEN_BITS and values.min(initial=0) >= 0:
            upper = (values >> 8).astype(np.uint8)
            return importlib.import_module("PIL.Image").fromarray(upper)
    return image


class Resize:
    """Scales the shorter edge to a size, bilinear, or both edges to (height, width)."""

    def __init__(self, size: int | Sequence[int]) -> None:
        """Scale to `size` pixels."""
        self.size = size

    def __call__(self, image: Any) -> Any:
        """Return `image` scaled; the longer edge is rounded down."""
        width, height = image.size
        target = self._target(width, height)
        if target == (width, height):
            return image
        return image.resize(target, importlib.import_module("PIL.Image").Resampling.BILINEAR)

    def _target(self, width: int, height: int) -> tuple[int, int]:
        sizes = [self.size] if isinstance(self.size, int) else list(self.size)
        if len(sizes) > 1:
            return sizes[1], sizes[0]
        short = sizes[0]
        if width <= height:
            return short, int(short * height / width)
        return int(short * width / height), short

    def __repr__(self) -> str:
        """Show the size."""
        return f"Resize({self.size})"


class CenterCrop:
    """Cuts out the middle; what is smaller gets a black border."""

    def __init__(self, size: int | Sequence[int]) -> None:
        """Cut `size` pixels square, or (height, width)."""
        both = [size] if isinstance(size, int) else list(size)
        self.size = (both[0], both[-1])

    def __call__(self, image: Any) -> Any:
        """Return the middle of `image`; half a pixel goes to the even side."""
        height, width = self.size
        image = _extend(image, width, height)
        left = round((image.size[0] - width) / 2)
        top = round((image.size[1] - height) / 2)
        return image.crop((left, top, left + width, top + height))

    def __repr__(self) -> str:
        """Show the size."""
        return f"CenterCrop({self.size})"


def _extend(image: Any, width: int, height: int) -> Any:
    """Return `image` with a black border that makes it at least `width` by `height`."""
    across, down = max(width - image.size[0], 0), max(height - image.size[1], 0)
    if not (across or down):
        return image
    border = (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2)
    return importlib.import_module("PIL.ImageOps").expand(image, border=border, fill=0)


class ToTensor:
    """Makes a tensor (channels, height, width); bytes become numbers from 0 to 1."""

    def __call__(self, image: Any) -> Any:
        """Return the tensor of `image`, an image or an array (height, width, channels)."""
        torch: Any = importlib.import_module("torch")
        np: Any = importlib.import_module("numpy")
        if isinstance(image, np.ndarray):
            array = image if image.ndim > 2 else image[:, :, None]  # noqa: PLR2004 - no channels
        else:
            array = _pixels(image, np)
        tensor = torch.from_numpy(array.transpose(2, 0, 1)).contiguous()
        if tensor.dtype is not torch.uint8:
            return tensor
        return tensor.to(torch.get_default_dtype()).div(255)

    def __repr__(self) -> str:
        """Show the class."""
        return "ToTensor()"


def _pixels(image: Any, np: Any) -> Any:
    """Return a writable array (height, width, channels) of `image`."""
    sixteen = "I;16" if sys.byteorder == "little" else "I;16B"
    wide = {"I": np.int32, sixteen: np.int16, "F": np.float32}
    array = np.array(image, wide.get(image.mode, np.uint8), copy=True)
    if image.mode == "1":
        array = array * np.uint8(255)
    return array.reshape(image.size[1], image.size[0], len(image.getbands()))


class Normalize:
    """Subtracts a mean from each channel and divides by a standard deviation."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Know `mean` and `std`, one number for each channel."""
        self.mean, self.std = mean, std

    def __call__(self, tensor: Any) -> Any:
        """Return `tensor` normalised, as a new one.

        Raises:
            TypeError: its numbers are whole.
        """
        torch: Any = importlib.import_module("torch")
        if not tensor.is_floating_point():
            raise TypeError(f"the input must be a tensor of floats, not {tensor.dtype}")
        mean, std = (
            torch.as_tensor(values, dtype=tensor.dtype, device=tensor.device).view(-1, 1, 1)
            for values in (self.mean, self.std)
        )
        return tensor.clone().sub_(mean).div_(std)

    def __repr__(self) -> str:
        """Show both."""
        return f"Normalize(mean={self.mean}, std={self.std})"


def classify_imagenet() -> Compose:
    """Return what networks trained on ImageNet expect: 224 pixels square out of the middle."""
    return Compose(
        [Colour(), Resize(256), CenterCrop(224), ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    )
