"""The handler of the GPU benchmark, with BaseHandler's own inference."""

from __future__ import annotations

from typing import Any

from image_model import read_pixels, write_scores
from ts.torch_handler.base_handler import BaseHandler


class ImageHandler(BaseHandler):
    def preprocess(self, data: list[dict[str, Any]]) -> Any:
        return read_pixels([row["body"] for row in data])

    def postprocess(self, data: Any) -> list[bytes]:
        return write_scores(data)
