"""`handler.model_path` where it names a file that the archive refers to, on a disk of its server.

In TorchServe a handler opens that path. Here the file is fetched and verified, and its place in the
model directory is what handlers are told; an archive that carries it says so for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hatch_mar.archive.modelconfig import parse_model_config

if TYPE_CHECKING:
    from hatch_mar.archive.manifest import Manifest
    from hatch_mar.weights.reference import Reference


def find_target(raw: Mapping[str, Any] | None, references: Iterable[Reference]) -> str | None:
    """Return the place in the model directory of the file that `handler.model_path` names.

    None if it names none of those that are referred to by that path.
    """
    section = (raw or {}).get("handler")
    path = section.get("model_path") if isinstance(section, Mapping) else None
    if not isinstance(path, str):
        return None
    return next((each.target for each in references if each.source == path), None)


def lead_inside(raw: Mapping[str, Any], references: Iterable[Reference]) -> Mapping[str, Any]:
    """Return `raw`, the parsed model-config.yaml, as it is where the file is in its place."""
    target = find_target(raw, references)
    if target is None:
        return raw
    return {**raw, "handler": {**raw["handler"], "model_path": target}}


def carry_inside(
    manifest: Manifest, config: bytes, references: Iterable[Reference]
) -> tuple[Manifest, bytes]:
    """Return the manifest and model-config.yaml of an archive that carries `references` now."""
    import yaml  # noqa: PLC0415 - only those who say something there pay for it

    raw, _ = parse_model_config(config, manifest.config_file or "")
    target = find_target(raw, references)
    if target is None:
        return manifest, config
    text: str = yaml.safe_dump(lead_inside(raw, references), sort_keys=False, allow_unicode=True)
    return replace(manifest, serialized_file=manifest.serialized_file or target), text.encode()
