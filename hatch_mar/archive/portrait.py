"""An archive described without being verified or unpacked: everything that it says of itself."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatch_mar.archive.modelconfig import read_model_config
from hatch_mar.archive.unpack import open_extra_files
from hatch_mar.errors import ArchiveError
from hatch_mar.weights.cache import find_cached
from hatch_mar.weights.uri import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatch_mar.archive.members import Members
    from hatch_mar.archive.modelconfig import ModelConfig
    from hatch_mar.archive.read import Archive
    from hatch_mar.archive.seal import Seal
    from hatch_mar.weights.reference import Reference

LONGEST_REQUIREMENTS = 1 << 20
"""Bytes of a requirements file that are worth showing."""


def portray(archive: Archive) -> dict[str, Any]:
    """Return a description of `archive`, of JSON's types. URLs have no secrets in it.

    Raises:
        ArchiveError: a member that it needs, such as model-config.yaml, cannot be read.
    """
    manifest, seal = archive.manifest, archive.seal
    config = read_model_config(archive.config)
    warnings = [*archive.warnings, *config.warnings]
    extra_files = [_describe_tarball(archive, name, warnings) for name in config.system_extra_files]
    requirements = list(_list_requirements(archive, warnings))
    return {
        "name": manifest.model_name,
        "version": manifest.model_version,
        "path": str(archive.path),
        "kind": archive.kind,
        "sealed": seal is not None and bool(seal.members),
        "handler": manifest.handler,
        "modelFile": manifest.model_file,
        "serializedFile": manifest.serialized_file,
        "runtime": None if seal is None else seal.runtime,
        "createdOn": manifest.created_on if archive.has_manifest else None,
        "archiverVersion": manifest.archiver_version if archive.has_manifest else None,
        "manifest": manifest.as_dict() if archive.has_manifest else None,
        "config": _describe_config(archive, config),
        "members": list(_describe_members(archive, seal)),
        "references": [_describe_reference(each) for each in (seal.references if seal else ())],
        "examples": [each.as_dict() for each in (seal.examples if seal else ())],
        "requirements": requirements,
        "extraFiles": extra_files,
        "trustedPickle": list(seal.trusted_pickle) if seal else [],
        "platform": dict(seal.platform) if seal else {},
        "packing": seal.packing.as_dict() if seal else None,
        "warnings": warnings,
    }


def _describe_config(archive: Archive, config: ModelConfig) -> dict[str, Any]:
    return {
        "file": archive.manifest.config_file,
        "values": _plain(config.raw),
        "minWorkers": config.min_workers,
        "maxWorkers": config.max_workers,
        "batchSize": config.batch_size,
        "maxBatchDelay": config.max_batch_delay,
        "responseTimeout": config.response_timeout,
        "startupTimeout": config.startup_timeout,
        "deviceType": config.device_type,
        "deviceIds": None if config.device_ids is None else list(config.device_ids),
        "parallelType": config.parallel_type or None,
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
    """Return `value` with the types of JSON, and without the secrets of URLs."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return redact(value) if "://" in value else value
    if value is None or isinstance(value, (bool, int)):
        return value
    # What JSON has no word for: nan and the infinities, dates, bytes.
    finite = isinstance(value, float) and value - value == 0
    return value if finite else str(value)


def _describe_members(archive: Archive, seal: Seal | None) -> Iterator[dict[str, Any]]:
    for name in sorted(archive.names()):
        sealed = seal.members.get(name) if seal else None
        yield {
            "name": name,
            "size": archive.size(name),
            "sha256": sealed.sha256 if sealed else None,
            "executable": archive.executable(name),
        }


def _describe_reference(reference: Reference) -> dict[str, Any]:
    cached = find_cached(reference)
    return {
        **reference.as_dict(),
        "source": redact(reference.source),
        "mirrors": list(map(redact, reference.mirrors)),
        "cached": None if cached is None else str(cached),
    }


def _list_requirements(archive: Archive, warnings: list[str]) -> Iterator[str]:
    """Yield the lines that ask for something; URLs in them may hold secrets."""
    name = archive.manifest.requirements_file
    if name is None:
        return
    if name not in archive:
        warnings.append(f"{name}: named in the manifest, but not in the archive")
        return
    if archive.size(name) > LONGEST_REQUIREMENTS:
        warnings.append(f"{name}: too long to be shown")
        return
    for line in archive.read(name).decode(errors="replace").splitlines():
        words = line.strip().split()
        if words and not words[0].startswith("#"):
            yield " ".join(map(_redact_word, words))


def _redact_word(word: str) -> str:
    """Redact a URL that is a word of its own or follows a `name@`, `--option=` or `git+`."""
    start = word.find("://")
    if start < 0:
        return word
    while start > 0 and (word[start - 1].isalnum() or word[start - 1] in "+-."):
        start -= 1
    return f"{word[:start]}{redact(word[start:])}"


def _describe_tarball(archive: Archive, name: str, warnings: list[str]) -> dict[str, Any]:
    try:
        files: list[dict[str, Any]] | None = list(_list_tarball(archive, name))
    except (ArchiveError, OSError) as error:
        warnings.append(f"{name}: its files cannot be listed: {error}")
        files = None
    return {"tarball": name, "files": files}


def _list_tarball(archive: Archive, name: str) -> Iterator[dict[str, Any]]:
    file = archive.file(name)  # an ArchiveError if there is no such member
    if file is not None:
        yield from _list_files(open_extra_files(file))
        return
    # A zip is read from its end: a member of another archive has to be a file for that.
    with tempfile.TemporaryDirectory(prefix="hatch-mar-") as scratch:
        copy = Path(scratch, "tarball")
        with archive.open(name) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        yield from _list_files(open_extra_files(copy))


def _list_files(members: Members) -> Iterator[dict[str, Any]]:
    try:
        for name in sorted(members.names()):
            yield {"name": name, "size": members.size(name)}
    finally:
        members.close()
