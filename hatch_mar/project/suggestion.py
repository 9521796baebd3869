"""Did you mean: the nearest of the names that would have been right."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def did_you_mean(wrong: str, right: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return `; did you mean 'x'?` for the nearest of `right`, or nothing if none is near."""
    candidates = sorted(set(right))
    folded = {candidate.casefold(): candidate for candidate in candidates}
    near = difflib.get_close_matches(wrong.casefold(), folded, n=1, cutoff=cutoff)
    return f"; did you mean '{folded[near[0]]}'?" if near else ""


def nearby_file(root: Path, path: str) -> str:
    """Return `; did you mean 'x'?` for a file that does not exist, from what lies beside it."""
    folder = (root / path).parent
    while folder != root and not folder.is_dir() and root in folder.parents:
        folder = folder.parent
    if not folder.is_dir():
        return ""
    beside = [entry.relative_to(root).as_posix() for entry in folder.iterdir()]
    return did_you_mean(path, (name for name in beside if not name.startswith(".")))
