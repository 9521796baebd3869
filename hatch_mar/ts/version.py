"""`ts.version`: the TorchServe whose contract is kept."""

from __future__ import annotations

from hatch_mar.model.context import SERVER_VERSION

__version__ = SERVER_VERSION
