"""The wheel's bill of materials: what the model consists of, and what it asks for.

CycloneDX 1.6 as JSON (ECMA-424), where PEP 770 wants it: `.dist-info/sboms/`. The same model is the
same bytes: no serial number, and no time unless `SOURCE_DATE_EPOCH` gives one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from hatch_mar.archive.packaged import MODEL_DIRECTORY
from hatch_mar.archive.stamp import parse_stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hatch_mar.archive.seal import Seal
    from hatch_mar.project.spec import MarSpec
    from hatch_mar.weights.reference import Reference

SPEC_VERSION = "1.6"
MODEL_REF = "model"
WHEEL_REF = "wheel"
URI_SAFE = "%:/?#[]@!$&'()*+,;=~"
"""What `quote` leaves alone besides letters and digits: reserved characters, and what is quoted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What the wheel's own metadata say."""

    name: str
    version: str
    dependencies: tuple[str, ...] = ()
    """PEP 508."""
    license_expression: str = ""
    """SPDX, or empty."""


def sbom_name(spec: MarSpec) -> str:
    """Return the file's name below `.dist-info/sboms/`."""
    return f"{spec.package}.cdx.json"


def make_sbom(
    spec: MarSpec, seal: Seal, distribution: Distribution, environ: Mapping[str, str]
) -> bytes:
    """Return the bill of materials of the wheel that carries the model of `seal`."""
    files = [_file(spec, name, digest.sha256, digest.size) for name, digest in _members(seal)]
    references = [_reference(each) for each in seal.references]
    model_libraries = _libraries(_requirements(spec))
    libraries = {**_libraries(distribution.dependencies), **model_libraries}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": _metadata(spec, distribution, environ),
        "components": [_model(spec, seal), *files, *references, *libraries.values()],
        "dependencies": [
            {"ref": WHEEL_REF, "dependsOn": [MODEL_REF, *_libraries(distribution.dependencies)]},
            {
                "ref": MODEL_REF,
                "dependsOn": [each["bom-ref"] for each in (*files, *references)]
                + [*model_libraries],
            },
        ],
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _members(seal: Seal) -> list[tuple[str, Any]]:
    return sorted(seal.members.items())


def _metadata(
    spec: MarSpec, distribution: Distribution, environ: Mapping[str, str]
) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": WHEEL_REF,
        "name": distribution.name,
        "version": distribution.version,
        "purl": _purl(distribution.name, distribution.version),
    }
    if distribution.license_expression:
        component["licenses"] = [{"expression": distribution.license_expression}]
    tool = {"type": "application", "name": "hatch-mar", "version": version("hatch-mar")}
    metadata: dict[str, Any] = {"tools": {"components": [tool]}, "component": component}
    if environ.get("SOURCE_DATE_EPOCH"):
        metadata["timestamp"] = parse_stamp(spec.created_on).strftime("%Y-%m-%dT%H:%M:%SZ")
    return metadata


def _model(spec: MarSpec, seal: Seal) -> dict[str, Any]:
    properties = {"hatch-mar:runtime": seal.runtime, "hatch-mar:handler": spec.handler.manifest}
    model = {
        "type": "machine-learning-model",
        "bom-ref": MODEL_REF,
        "name": seal.name,
        "version": seal.version,
        "properties": _properties(properties),
    }
    return {**model, "description": spec.description} if spec.description else model


def _file(spec: MarSpec, name: str, sha256: str, size: int) -> dict[str, Any]:
    """Return the component of a file in the wheel, by its place there."""
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": f"{spec.package}/{MODEL_DIRECTORY}/{name}",
        "hashes": _sha256(sha256),
        "properties": _properties({"hatch-mar:size": str(size)}),
    }


def _reference(reference: Reference) -> dict[str, Any]:
    """Return the component of weights that the wheel names instead of carrying."""
    component = {
        "type": "file",
        "bom-ref": f"reference:{reference.target}",
        "name": reference.target,
        "scope": "required",
        "hashes": _sha256(reference.sha256),
        "externalReferences": [
            {"type": "distribution", "url": quote(uri, safe=URI_SAFE)}
            for uri in (reference.source, *reference.mirrors)
        ],
    }
    if reference.size is not None:
        component["properties"] = _properties({"hatch-mar:size": str(reference.size)})
    return component


def _requirements(spec: MarSpec) -> list[str]:
    """Return the lines of the archive's requirements.txt."""
    for entry in spec.entries:
        if entry.name == spec.requirements_file:
            data = entry.source if isinstance(entry.source, bytes) else entry.source.read_bytes()
            return data.decode("utf-8", errors="replace").splitlines()
    return []


def _libraries(requirements: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the components of `requirements` by their `bom-ref`; options and comments are none."""
    found = {}
    for line in requirements:
        try:
            wanted = Requirement(line.partition(" #")[0])
        except InvalidRequirement:
            continue
        library = _library(wanted)
        found[library["bom-ref"]] = library
    return dict(sorted(found.items(), key=lambda item: (item[1]["name"], item[0])))


def _library(wanted: Requirement) -> dict[str, Any]:
    name = canonicalize_name(wanted.name)
    exact = [each.version for each in wanted.specifier if each.operator in ("==", "===")]
    pinned = exact[0] if len(exact) == 1 and "*" not in exact[0] else None
    library = {
        "type": "library",
        "bom-ref": f"requirement:{wanted}",
        "name": name,
        "purl": _purl(name, pinned),
        "properties": _properties({"hatch-mar:requirement": str(wanted)}),
    }
    return {**library, "version": pinned} if pinned else library


def _purl(name: str, release: str | None) -> str:
    suffix = f"@{quote(release, safe='')}" if release else ""
    return f"pkg:pypi/{canonicalize_name(name)}{suffix}"


def _sha256(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _properties(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]
