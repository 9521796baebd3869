"""How `[tool.mar.serve]` and `[tool.mar.system]` spell the keys of model-config.yaml."""

from __future__ import annotations

from hatch_mar.archive.configkeys import FRONTEND_KEYS, snake


def kebab(key: str) -> str:
    """Return `batch-size` for `batchSize`."""
    return snake(key).replace("_", "-")


SERVE_KEYS = {kebab(key.name): key.name for key in FRONTEND_KEYS}
SYSTEM_KEYS = {
    "extra-files": "extraFiles",
    "max-gpu-memory": "maxGPUMemory",
    "decode-images": "decodeImages",
}
