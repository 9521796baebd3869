"""What two archives have in common, member by member, whatever kind each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatch_mar.archive.measure import hash_stream
from hatch_mar.archive.seal import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.archive.read import Archive


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The differences between a left and a right archive; names are sorted."""

    only_left: tuple[str, ...]
    only_right: tuple[str, ...]
    differing: Mapping[str, tuple[Digest, Digest]]
    """Members of both that have other bytes, or of which only one is a program."""

    @property
    def same(self) -> bool:
        """Whether there are no differences."""
        return not (self.only_left or self.only_right or self.differing)


def compare(left: Archive, right: Archive) -> Comparison:
    """Compare the members of two archives by digest.

    Raises:
        ArchiveError: a member cannot be read.
    """
    ours, theirs = measure(left), measure(right)
    return Comparison(
        only_left=tuple(sorted(ours.keys() - theirs.keys())),
        only_right=tuple(sorted(theirs.keys() - ours.keys())),
        differing={
            name: (ours[name], theirs[name])
            for name in sorted(ours.keys() & theirs.keys())
            if ours[name] != theirs[name]
        },
    )


def measure(archive: Archive) -> dict[str, Digest]:
    """Return the digest of every member, read anew; the seal is not asked.

    Raises:
        ArchiveError: a member cannot be read.
    """
    return {name: _measure(archive, name) for name in archive.names()}


def _measure(archive: Archive, name: str) -> Digest:
    with archive.open(name) as file:
        sha256, size = hash_stream(file)
    return Digest(sha256, size, executable=archive.executable(name))
