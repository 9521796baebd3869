"""A plugin of pytest: with hatch-mar installed, tests of handlers import `ts.*` and `base_handler`.

An installed TorchServe comes first. `pytest -p no:hatch-mar` leaves the names alone.
"""

from __future__ import annotations

from hatch_mar.ts.finder import offer

offer()
