"""What an archive will hold, decided before a byte is written.

`project` makes a plan from what the author wrote; `write`, the wheel and `export` all follow it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from hatch_mar.archive.manifest import MANIFEST_NAME, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hatch_mar.archive.seal import Example
    from hatch_mar.weights.reference import Reference

Format = Literal["mar", "tgz", "dir"]


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive."""

    name: str
    """POSIX path inside the archive."""
    source: Path | bytes
    """The file to copy, or the bytes themselves where we generate them."""
    executable: bool = False

    def size(self) -> int:
        """Return the size in bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that determines an archive's bytes."""

    name: str
    version: str
    manifest: Manifest
    members: tuple[Member, ...]
    """Every member except `MAR-INF/MANIFEST.json` and `MAR-INF/SEAL.json`."""
    runtime: str
    references: tuple[Reference, ...] = ()
    examples: tuple[Example, ...] = ()
    trusted_pickle: tuple[str, ...] = ()
    platform: dict[str, str] = field(default_factory=dict)
    format: Format = "mar"
    compression: Literal["stored", "deflated"] = "stored"
    filename: str = ""
    """File name of the archive, such as `digits-1.0.0.mar`."""

    def sealed_members(self) -> Iterator[Member]:
        """Yield the manifest and the members, sorted by name: what the seal digests."""
        manifest = Member(MANIFEST_NAME, self.manifest.to_json())
        yield from sorted((manifest, *self.members), key=lambda member: member.name)
