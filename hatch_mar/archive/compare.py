"""What two archives have in common, member by member, whatever kind each of them is.

The manifest and the seal are members too, but two packings of the same files have two seals: they
are compared by what they say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hatch_mar.archive.manifest import MANIFEST_NAME
from hatch_mar.archive.measure import hash_stream
from hatch_mar.archive.seal import SEAL_NAME, Digest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hatch_mar.archive.measure import Advance
    from hatch_mar.archive.read import Archive

ABOUT = frozenset({MANIFEST_NAME, SEAL_NAME})
"""Members that say something about the others; `list_manifest` and `list_seal` give what."""
_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The differences between a left and a right archive; names are sorted."""

    only_left: tuple[str, ...]
    only_right: tuple[str, ...]
    differing: Mapping[str, tuple[Digest, Digest]]
    """Members of both that have other bytes, or of which only one is a program."""
    left: Mapping[str, Digest] = field(default_factory=dict)
    """All members that were compared."""
    right: Mapping[str, Digest] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether there are no differences."""
        return not (self.only_left or self.only_right or self.differing)


def compare(
    left: Archive,
    right: Archive,
    *,
    without: Collection[str] = (),
    advance: Advance | None = None,
) -> Comparison:
    """Compare the members of two archives by digest, `without` some of them.

    `advance` is told how many bytes have been read since it was last told.

    Raises:
        ArchiveError: a member cannot be read.
    """
    ours = measure(left, without=without, advance=advance)
    theirs = measure(right, without=without, advance=advance)
    return Comparison(
        only_left=tuple(sorted(ours.keys() - theirs.keys())),
        only_right=tuple(sorted(theirs.keys() - ours.keys())),
        differing={
            name: (ours[name], theirs[name])
            for name in sorted(ours.keys() & theirs.keys())
            if ours[name] != theirs[name]
        },
        left=ours,
        right=theirs,
    )


def measure(
    archive: Archive, *, without: Collection[str] = (), advance: Advance | None = None
) -> dict[str, Digest]:
    """Return the digest of every member, read anew; the seal is not asked.

    Raises:
        ArchiveError: a member cannot be read.
    """
    return {
        name: _measure(archive, name, advance) for name in archive.names() if name not in without
    }


def _measure(archive: Archive, name: str, advance: Advance | None) -> Digest:
    with archive.open(name) as file:
        sha256, size = hash_stream(file, advance=advance)
    return Digest(sha256, size, executable=archive.executable(name))


@dataclass(frozen=True, slots=True)
class Change:
    """One key whose value differs."""

    key: str
    """Key path, such as `model.handler`; a key that holds a dot is not told from two."""
    sides: Mapping[str, Any]
    """The values of `left` and `right`; without the side that does not have the key."""


def find_changes(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Change]:
    """Return the keys that differ in two documents, sorted. Lists are values, compared whole."""
    ours, theirs = dict(_flatten(left)), dict(_flatten(right))
    changes = []
    for key in sorted(ours.keys() | theirs.keys()):
        pair = {"left": ours.get(key, _ABSENT), "right": theirs.get(key, _ABSENT)}
        if not _equal(pair["left"], pair["right"]):
            there = {side: value for side, value in pair.items() if value is not _ABSENT}
            changes.append(Change(key, there))
    return changes


def _equal(left: object, right: object) -> bool:
    """Say whether two values are the same to a reader of YAML or JSON: 1 is not true."""
    return left == right and repr(left) == repr(right)


def _flatten(document: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in document.items():
        if isinstance(value, dict) and value:
            found += _flatten(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def list_manifest(archive: Archive, *, everything: bool) -> dict[str, Any]:
    """Return the manifest as it stands, keys that nobody knows included; {} if there is none.

    Without `everything`, it has no `createdOn`.

    Raises:
        ArchiveError: it cannot be read.
    """
    if not archive.has_manifest:
        return {}
    raw = json.loads(archive.read(MANIFEST_NAME))
    return {key: value for key, value in raw.items() if everything or key != "createdOn"}


def list_seal(archive: Archive, *, everything: bool) -> dict[str, Any]:
    """Return what the seal says, members aside; of references and examples by target and input.

    An archive without a seal says that it names nothing. Without `everything`, how it was packed
    and on which platform is left out.
    """
    seal = archive.seal
    if seal is None:
        return {"references": {}, "examples": {}, "trustedPickle": []}
    facts: dict[str, Any] = {
        "runtime": seal.runtime,
        "references": {each.target: each.as_dict() for each in seal.references},
        "examples": {each.input: each.as_dict() for each in seal.examples},
        "trustedPickle": sorted(seal.trusted_pickle),
    }
    if everything:
        facts |= {"platform": dict(seal.platform), "archive": seal.packing.as_dict()}
    return facts


def list_config(archive: Archive) -> dict[str, Any]:
    """Return model-config.yaml, {} if there is none.

    Raises:
        ArchiveError: it cannot be read.
    """
    return archive.config or {}


def read_text(archive: Archive, name: str, *, largest: int = 1 << 20) -> str | None:
    """Return a member's text; None if it is no UTF-8 text, or has more than `largest` bytes."""
    if archive.size(name) > largest:
        return None
    try:
        text = archive.read(name).decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
