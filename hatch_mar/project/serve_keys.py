"""How `[tool.mar.serve]` and `[tool.mar.system]` spell the keys of model-config.yaml."""

from __future__ import annotations

from typing import Any

from hatch_mar.archive.configkeys import FRONTEND_KEYS, JAVA_INTEGER, SECTIONS, Key, Kind, snake
from hatch_mar.archive.cudakeys import CUDA_KEYS as CUDA_SECTION_KEYS


def kebab(key: str) -> str:
    """Return `batch-size` for `batchSize`."""
    return snake(key).replace("_", "-")


SERVE_KEYS = {kebab(key.name): key.name for key in FRONTEND_KEYS}
SYSTEM_KEYS = {
    "extra-files": "extraFiles",
    "max-gpu-memory": "maxGPUMemory",
    "decode-images": "decodeImages",
}
CUDA_KEYS = {kebab(key.name): key.name for key in CUDA_SECTION_KEYS}
"""Keys of the table `[tool.mar.serve.cuda]`."""
_INTEGER = {"type": "integer", "maximum": JAVA_INTEGER.stop - 1}
_INTEGERS = {"type": "array", "items": _INTEGER, "minItems": 1, "uniqueItems": True}
_TYPES: dict[Kind, dict[str, Any]] = {
    "integer": _INTEGER,
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "integers": _INTEGERS,
    "sizes": {"anyOf": [{"const": True}, _INTEGERS]},
    "mapping": {"type": "object"},
}


def serve_schema() -> dict[str, Any]:
    """Return the JSON schema of `[tool.mar.serve]`: its known keys; others are the handler's."""
    known = {kebab(key.name): _key_schema(key) for key in FRONTEND_KEYS}
    sections: dict[str, dict[str, Any]] = {
        name: {"type": "object"} for name in SECTIONS if name not in ("system", "pt2")
    }
    cuda = {kebab(key.name): _key_schema(key) for key in CUDA_SECTION_KEYS}
    sections["cuda"] |= {"properties": cuda, "additionalProperties": False}
    return {"type": "object", "properties": {**known, **sections}}


def _key_schema(key: Key) -> dict[str, Any]:
    schema = {"description": key.meaning, **_TYPES[key.kind]}
    if key.choices:
        any_case = "|".join(
            "".join(_either_case(letter) for letter in each) for each in key.choices
        )
        return {
            "description": key.meaning,
            "anyOf": [
                {"enum": list(key.choices)},
                {"type": "string", "pattern": f"^({any_case})$"},
            ],
        }
    positive = {**_INTEGERS, "items": {**_INTEGER, "minimum": key.least}}
    if key.kind == "sizes":
        schema["anyOf"] = [{"const": True}, positive]
    elif key.least is not None and key.kind == "integers":
        schema |= positive
    elif key.least is not None:
        schema["minimum"] = key.least
    return schema


def _either_case(letter: str) -> str:
    return f"[{letter}{letter.upper()}]"
