"""Make weights/palette.json, which git ignores: weights are often too big for it."""

import json
from pathlib import Path

PALETTE = {
    "black": [0, 0, 0],
    "blue": [0, 0, 255],
    "green": [0, 128, 0],
    "red": [255, 0, 0],
    "white": [255, 255, 255],
}

folder = Path(__file__).parent / "weights"
folder.mkdir(exist_ok=True)
(folder / "palette.json").write_text(json.dumps(PALETTE))
