"""Files that bring others along: the index of a sharded checkpoint, ONNX with data outside of it.

Which ones, the file itself says. Its words are paths beside it; nothing else is followed.
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

from hatch_mar.archive.names import find_flaw
from hatch_mar.project.founding.onnx_graph import read_graph
from hatch_mar.weights.address import HubAddress, ObjectAddress

if TYPE_CHECKING:
    from pathlib import Path

INDEX = ".index.json"
"""How the index of a sharded checkpoint ends (`model.safetensors.index.json`, as the libraries of
Hugging Face write and read it)."""
ONNX = ".onnx"
LONGEST_INDEX = 64 * 1024 * 1024
"""Bytes. The index of the largest models there are has some megabytes."""

TOO_LONG = "is too big for an index of shards"


class ShardsError(ValueError):
    """A file that does not say which files it needs, or wants some that it may not; says why."""


def is_index(target: str) -> bool:
    """Say whether `target` is nothing without the files that it names."""
    return target.endswith(INDEX)


def may_name_others(target: str) -> bool:
    """Say whether `target` is of a kind that can name other files."""
    return target.endswith((INDEX, ONNX))


def read_named(path: Path, target: str) -> tuple[str, ...]:
    """Return the paths of the files that the one at `path`, called `target`, needs beside it.

    Raises:
        ShardsError: it is no index, or names what is no file beside it.
        OSError: it cannot be read.
    """
    if is_index(target):
        names = _read_index(path)
    elif target.endswith(ONNX) and path.stat().st_size:
        graph = read_graph(path)
        names = set(graph.companions) if graph is not None else set()
    else:
        return ()
    for name in sorted(names):
        flaw = find_flaw(posixpath.normpath(name)) if name else "is empty"
        if flaw is not None:
            raise ShardsError(f"names a file {name!r}, which {flaw}")
        if beside(target, name) == target:
            raise ShardsError("names itself as one of the files that it needs")
    return tuple(sorted({posixpath.normpath(name) for name in names}))


def _read_index(path: Path) -> set[str]:
    if path.stat().st_size > LONGEST_INDEX:
        raise ShardsError(TOO_LONG)
    try:
        raw = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ShardsError(f"is not JSON, so it is no index of shards: {error}") from error
    shards = raw.get("weight_map") if isinstance(raw, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(each, str) for each in shards.values()):
        raise ShardsError("has no `weight_map` from tensors to files, so it is no index of shards")
    if not shards:
        raise ShardsError("is the index of no shards: its `weight_map` is empty")
    return set(shards.values())


def beside(target: str, name: str) -> str:
    """Return the path of the file that `target` calls `name`."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(target), name))


def sibling(source: str, name: str) -> str:
    """Return where the file is that the one at `source` calls `name`: beside it.

    A query or a version is that of `source` alone, but the commit of a repository is of all.
    """
    scheme = source.partition("://")[0].lower() if "://" in source else ""
    if scheme == "hf":
        address = HubAddress.parse(source)
        return str(replace(address, path=beside(address.path, name)))
    if scheme in {"s3", "gs", "az"}:
        place = ObjectAddress.parse(source)
        return str(replace(place, key=beside(place.key, name), version=None))
    if not scheme:
        return str(PurePosixPath(source).parent / name)
    parts = urlsplit(source)
    path = posixpath.join(posixpath.dirname(parts.path), quote(name))
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
