"""Into the archive, or into its list of references: the decision about a file of weights, and why.

What is elsewhere is referred to. What is here goes in as long as indexes will take the wheel, and
above that is referred to, if it is somewhere else too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hatch_mar.project.table import parse_size
from hatch_mar.weights.size import render_size

if TYPE_CHECKING:
    from hatch_mar.project.table import WheelTable

Place = Literal["auto", "embed", "reference"]


@dataclass(frozen=True, slots=True)
class Placement:
    """A decision that was made, or could not be."""

    embed: bool
    reason: str
    """Why, as the second half of a sentence: `its source is a URI`."""
    remarkable: bool = True
    """Whether the author may have expected something else."""


def place_here(place: Place, wheel: WheelTable, size: int) -> Placement:
    """Decide about a file of the project that has `size` bytes."""
    limit = parse_size(wheel.embed_limit)
    fits = size <= limit
    if place != "auto":
        return Placement(place == "embed", f'`place = "{place}"`', place != "embed" or not fits)
    if wheel.embed != "auto":
        always = wheel.embed == "always"
        return Placement(always, f'`wheel.embed = "{wheel.embed}"`', not always or not fits)
    if fits:
        reason = f"{render_size(size)} is within `wheel.embed-limit`, {wheel.embed_limit}"
        return Placement(embed=True, reason=reason, remarkable=False)
    return Placement(
        embed=False,
        reason=f"{render_size(size)} is more than `wheel.embed-limit`, {wheel.embed_limit}",
    )


def why_stuck(source: str, place: Place, wheel: WheelTable, size: int) -> str:
    """Say what to do about a file that must not go in and is nowhere else: the three ways out."""
    if place == "reference":
        reason = "is a local path, which nobody else can follow"
    elif wheel.embed == "never":
        reason = 'must not be embedded (`wheel.embed = "never"`) and is nowhere else'
    else:
        reason = f"has {render_size(size)}, more than `wheel.embed-limit` ({wheel.embed_limit})"
    return (
        f"'{source}' {reason}; put it where others can get it, give that URI as `source` and run "
        '`hatch-mar lock`, or embed it with `place = "embed"`, or raise `wheel.embed-limit`'
    )
