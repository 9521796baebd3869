"""Where a wheel keeps its model, and how an installed one is found."""

from __future__ import annotations

ENTRY_POINT_GROUP = "hatch_mar.models"
"""Entry points `<name> = <package>`: one for each model."""
MODEL_DIRECTORY = "model"
"""Directory in that package that is the unpacked archive."""
