"""The names that TorchServe's handlers import as `ts.*`: thin over `hatch_mar.model`.

`install()` makes them importable, `offer()` where nothing else has them. Nothing of TorchServe is
installed; nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.ts.finder import install, offer
from hatch_mar.ts.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__: Sequence[str] = ["__version__", "install", "offer"]
