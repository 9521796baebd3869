"""Where each file of weights goes: into the archive, or into its list of references."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hatch_mar.project.document import render
from hatch_mar.project.reading import Reading, is_lfs_pointer
from hatch_mar.project.secret import conceal, find_secret
from hatch_mar.project.spec import WeightsFile
from hatch_mar.project.suggestion import did_you_mean
from hatch_mar.project.table import WeightsTable, parse_size
from hatch_mar.weights.digest import hash_file
from hatch_mar.weights.reference import Reference
from hatch_mar.weights.size import render_size
from hatch_mar.weights.uri import SCHEMES, find_flaw, redact

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.project.document import KeyPath

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_uri(text: str) -> bool:
    """Say whether `text` names something outside the project."""
    return URI.match(text) is not None


def resolve_weights(reading: Reading) -> tuple[WeightsFile, ...]:
    """Return the files of weights, the primary one marked; without those that have problems."""
    tables = list(reading.entries("weights", reading.table.weights))
    primaries = [key for key, table in tables if table.primary]
    for key in primaries[1:]:
        reading.complain((*key, "primary"), "only one file can be the primary one")
    primary = next(iter([*primaries, *(key for key, _ in tables)]), None)
    found = []
    for key, table in tables:
        file = _resolve_one(reading, table, key, primary=key == primary)
        if file is not None:
            found.append(file)
    return tuple(found)


def _resolve_one(
    reading: Reading, table: WeightsTable, key: KeyPath, *, primary: bool
) -> WeightsFile | None:
    sources_fit = _check_sources(reading, table, key)
    target = _target(reading, table, key) if sources_fit else None
    path: Path | None = None
    reference: Reference | None = None
    if is_uri(table.source):
        reference = _remote(reading, table, key, target)
    else:
        path = reading.locate((*key, "source"), table.source)
        if path is not None and not _is_what_it_should_be(reading, table, key, path):
            return None
        if path is not None and _must_be_named(reading, table, path):
            reference = _local_by_name(reading, table, key, target, path)
            path = None
        elif path is not None:
            reading.take(path)
    if target is None or (path is None and reference is None):
        return None
    return WeightsFile(
        target=target,
        key=render(key),
        path=path,
        reference=reference,
        primary=primary,
        trusted_pickle=table.trusted_pickle,
    )


def _check_sources(reading: Reading, table: WeightsTable, key: KeyPath) -> bool:
    """Say whether the source and its mirrors could be anywhere; complain of those that cannot."""
    found = [_check_uri(reading, (*key, "source"), table.source)] if is_uri(table.source) else []
    for index, mirror in enumerate(table.mirrors):
        where = (*key, "mirrors", index)
        if is_uri(mirror):
            found.append(_check_uri(reading, where, mirror))
        else:
            reading.complain(where, f"'{mirror}' is no URI such as https://...")
            found.append(False)
    return all(found)


def _check_uri(reading: Reading, key: KeyPath, uri: str) -> bool:
    secret = find_secret(uri)
    if secret is not None:
        reading.complain(
            key,
            f"'{redact(uri)}' holds {secret}, which everybody who has the archive could read; "
            "leave it out, and let servers log in by their own ~/.netrc",
        )
        return False
    flaw = find_flaw(uri)
    scheme = uri.partition(":")[0].lower()
    hint = "" if scheme in SCHEMES else did_you_mean(scheme, SCHEMES)
    if flaw is not None or hint:
        reading.complain(key, f"'{uri}' {flaw or f'is of a kind that nobody knows{hint}'}")
        return False
    if scheme not in SCHEMES:
        reading.notes.append(
            f"{redact(uri)}: this hatch-mar fetches {', '.join(SCHEMES)} only; a server needs one "
            f"that fetches {scheme}, or the file in its cache"
        )
    return True


def _target(reading: Reading, table: WeightsTable, key: KeyPath) -> str | None:
    """Return where the handler expects the file; None after complaining."""
    if table.target is None:
        path = urlsplit(table.source).path if is_uri(table.source) else table.source
        name = posixpath.basename(unquote(path))
        if name in ("", ".", ".."):
            reading.complain(
                (*key, "target"),
                f"'{conceal(table.source)}' does not end in a file's name; give one as `target`",
            )
            return None
        return name
    target = posixpath.normpath(table.target)
    if table.target.endswith("/"):
        reading.complain(
            (*key, "target"), f"'{table.target}' is a folder; write the file's name too"
        )
        return None
    if target.startswith(("/", "../")) or target in (".", ".."):
        reading.complain((*key, "target"), f"'{table.target}' is not a file in the model directory")
        return None
    return target


def _remote(
    reading: Reading, table: WeightsTable, key: KeyPath, target: str | None
) -> Reference | None:
    if table.place == "embed":
        reading.complain(
            (*key, "place"),
            f"'{conceal(table.source)}' is not here to be embedded, and a build opens no "
            "connection; download it into the project, or leave out `place`",
        )
        return None
    if table.sha256 is None:
        reading.complain(
            (*key, "sha256"),
            f"'{conceal(table.source)}' is elsewhere, and without a `sha256` nobody knows which "
            "bytes you mean; write { source, sha256 }",
        )
        return None
    if target is None:
        return None
    return Reference(
        target=target,
        source=table.source,
        sha256=table.sha256,
        size=table.size,
        mirrors=tuple(table.mirrors),
    )


def _must_be_named(reading: Reading, table: WeightsTable, path: Path) -> bool:
    """Say whether a local file may not go into the archive."""
    if table.place != "auto":
        return table.place == "reference"
    wheel = reading.table.wheel
    if wheel.embed != "auto":
        return wheel.embed == "never"
    return path.stat().st_size > parse_size(wheel.embed_limit)


def _local_by_name(
    reading: Reading, table: WeightsTable, key: KeyPath, target: str | None, path: Path
) -> Reference | None:
    """Make a reference to a file that is here too: its mirrors say where else."""
    size = path.stat().st_size
    if not table.mirrors:
        reading.complain((*key, "source"), _no_way_there(reading, table, size))
        return None
    if table.sha256 is None:
        reading.complain((*key, "sha256"), f"is required: see `sha256sum {table.source}`")
        return None
    source, *mirrors = table.mirrors
    if target is None:
        return None
    return Reference(
        target=target, source=source, sha256=table.sha256, size=size, mirrors=tuple(mirrors)
    )


def _no_way_there(reading: Reading, table: WeightsTable, size: int) -> str:
    wheel = reading.table.wheel
    if table.place == "reference":
        reason = "is a local path, which nobody else can follow"
    elif wheel.embed == "never":
        reason = 'must not be embedded (`wheel.embed = "never"`) and is nowhere else'
    else:
        reason = f"has {render_size(size)}, more than `wheel.embed-limit` ({wheel.embed_limit})"
    return (
        f"'{table.source}' {reason}; put it where others can get it and give that URI as `source` "
        'with its `sha256`, or embed it with `place = "embed"`, or raise `wheel.embed-limit`'
    )


def _is_what_it_should_be(reading: Reading, table: WeightsTable, key: KeyPath, path: Path) -> bool:
    if is_lfs_pointer(path):
        reading.complain(
            (*key, "source"), f"'{table.source}' is a Git LFS pointer; run `git lfs pull`"
        )
        return False
    size = path.stat().st_size
    if table.size not in (None, size):
        reading.complain((*key, "size"), f"is {table.size}, but '{table.source}' has {size} bytes")
        return False
    if table.sha256 is None:
        return True
    digest, _ = hash_file(path)
    if table.sha256 != digest:
        reading.complain((*key, "sha256"), f"is not that of '{table.source}', which has {digest}")
    return table.sha256 == digest
