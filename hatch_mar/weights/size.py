"""How numbers of bytes are written for people."""

from __future__ import annotations


def render_size(size: int) -> str:
    """Return `12.3 MB` for a number of bytes, in decimal units as disks and indexes count."""
    if size < 1000:  # noqa: PLR2004 - a kilobyte
        return f"{size} B"
    value, units = size / 1000, ["TB", "GB", "MB", "kB"]
    while value >= 1000 and len(units) > 1:  # noqa: PLR2004 - the next unit
        value /= 1000
        units.pop()
    return f"{value:.1f} {units[-1]}"
