"""`MAR-INF/MANIFEST.json`: the file that TorchServe reads first.

The keys, their order and the two-space indent are those of torch-model-archiver 0.12.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hatch_mar.errors import ArchiveError

MANIFEST_NAME = "MAR-INF/MANIFEST.json"
ARCHIVER_VERSION = "0.12.0"
"""What the manifest says made it: the version whose format we write."""
CREATED_ON = "02/02/2020 00:00:00"
"""`createdOn` of every archive that sets no `SOURCE_DATE_EPOCH`: hatchling's own fixed stamp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One manifest. Attributes are named as TorchServe names the keys, in snake case."""

    model_name: str
    model_version: str | None = None
    """None in archives that were made without one: TorchServe then calls them 1.0."""
    handler: str | None = None
    """`handler.py`, `handler`, `handler:function`, or a default-handler name."""
    serialized_file: str | None = None
    model_file: str | None = None
    requirements_file: str | None = None
    config_file: str | None = None
    extensions: Mapping[str, Any] | None = None
    runtime: str = "python"
    created_on: str = CREATED_ON
    archiver_version: str = ARCHIVER_VERSION
    envelope: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object as TorchServe's handlers see it in `context.manifest`."""
        model = {
            "modelName": self.model_name,
            "serializedFile": self.serialized_file,
            "handler": self.handler,
            "modelFile": self.model_file,
            "modelVersion": self.model_version,
            "extensions": self.extensions,
            "requirementsFile": self.requirements_file,
            "configFile": self.config_file,
            "envelope": self.envelope,
        }
        return {
            "createdOn": self.created_on,
            "runtime": self.runtime,
            "model": {key: value for key, value in model.items() if value is not None},
            "archiverVersion": self.archiver_version,
        }

    def to_json(self) -> bytes:
        """Serialise: two-space indent, no trailing newline, ASCII only."""
        return json.dumps(self.as_dict(), indent=2).encode()

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, fallback_name: str = "model") -> Manifest:
        """Read any manifest that ever was: unknown keys are ignored, missing ones get defaults.

        Raises:
            ArchiveError: `model` is not an object, or a name in it is not a string.
        """
        model = raw.get("model", {})
        if not isinstance(model, Mapping):
            raise ArchiveError(f"{MANIFEST_NAME}: model: must be an object")
        version = model.get("modelVersion")
        return cls(
            model_name=str(model.get("modelName") or fallback_name),
            model_version=None if version is None else str(version),
            handler=_text(model, "handler"),
            serialized_file=_text(model, "serializedFile"),
            model_file=_text(model, "modelFile"),
            requirements_file=_text(model, "requirementsFile"),
            config_file=_text(model, "configFile"),
            extensions=model.get("extensions"),
            runtime=str(raw.get("runtime") or "python"),
            created_on=str(raw.get("createdOn") or CREATED_ON),
            archiver_version=str(raw.get("archiverVersion") or ARCHIVER_VERSION),
            envelope=_text(model, "envelope"),
        )


def _text(model: Mapping[str, Any], key: str) -> str | None:
    value = model.get(key)
    if value is None or isinstance(value, str):
        return value
    raise ArchiveError(f"{MANIFEST_NAME}: model.{key}: must be a string, not {value!r}")


def parse_json(data: bytes) -> Any:  # noqa: ANN401 - whatever it says
    """Parse JSON, all of whose strings are text: JSON can spell halves of characters, UTF-8 cannot.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(data)
    json.dumps(value, ensure_ascii=False).encode()
    return value
