"""Write down what torchvision makes of images: `tests/model/torchvision.json`.

Run by hand, with a Python that has torchvision, torch and Pillow, when any of them has changed:

    python tests/record_torchvision.py

torchvision has no build for a torch without CUDA; its transforms are Python, and the environment
that `tests.support.torchserve.install_torchserve(..., vision=True)` makes can run them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "tests" / "model" / "torchvision.json"


def main() -> None:
    import PIL  # noqa: PLC0415 - for its version
    import torch  # noqa: PLC0415
    import torchvision  # type: ignore[import-not-found] # noqa: PLC0415

    sys.path.insert(0, str(ROOT))
    from tests.support.images import MODES, SIZES, make_image  # noqa: PLC0415 - the line before

    pipelines = _pipelines(torchvision.transforms)
    records = [
        {"mode": mode, "size": size, "pipeline": name, **_record(pipeline, make_image(mode, size))}
        for mode in MODES
        for size in (SIZES if mode == "RGB" else SIZES[:1] + SIZES[4:6])
        for name, pipeline in pipelines.items()
    ]
    versions = {
        "torchvision": torchvision.__version__.partition("+")[0],
        "torch": torch.__version__.partition("+")[0],
        "pillow": PIL.__version__,
    }
    lines = ",\n".join(json.dumps(record) for record in records)
    OUTPUT.write_text(f'{{"versions": {json.dumps(versions)},\n"records": [\n{lines}\n]}}\n')


def _pipelines(transforms: Any) -> dict[str, Any]:
    resize, crop, tensor = transforms.Resize, transforms.CenterCrop, transforms.ToTensor()
    imagenet = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    return {
        "imagenet": transforms.Compose([resize(256), crop(224), tensor, imagenet]),
        "squared": transforms.Compose([resize(256), crop(224), tensor]),
        "tensor": transforms.Compose([tensor]),
        "small": transforms.Compose([resize((5, 7)), crop((4, 9)), tensor]),
        "odd": transforms.Compose([resize(33), crop(28), tensor]),
    }


def _record(pipeline: Any, image: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            array = pipeline(image).numpy()
        except Exception as error:  # noqa: BLE001 - what torchvision refuses is worth knowing, too
            return {"refused": type(error).__name__}
    found: dict[str, Any] = {
        "shape": array.shape,
        "dtype": str(array.dtype),
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
    }
    if array.nbytes <= 1024:
        found["bytes"] = base64.b64encode(array.tobytes()).decode()
    return found


if __name__ == "__main__":
    main()
