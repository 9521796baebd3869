"""`ts.metrics.unit`."""

from __future__ import annotations

from typing import ClassVar

from hatch_mar.model.metrics import UNITS


class Units:
    """Short names of units, and how they are written."""

    units: ClassVar[dict[str | None, str]] = {None: UNITS[""]}
    units.update(UNITS)
