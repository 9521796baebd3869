"""Memory that a server has freed and is about to need again: it is kept.

The C library gives what is freed at the top of its heap back to the kernel, and asks it for every
larger piece by itself. For a body of 150 kB that is some forty page faults for each copy of it, and
half of the time that such a request takes.

Source: mallopt(3), of glibc; other C libraries have their own ways, and are left alone.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 64 << 20
"""Bytes that may be free at the top of the heap before some are given back."""
_MAPPED_FROM = 32 << 20
"""Pieces of so many bytes are the kernel's own matter; glibc takes no more for a threshold."""
_OWN_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
"""Where an operator says it, the operator is right."""


def keep_freed_memory(environ: Mapping[str, str] = os.environ) -> bool:
    """Have this process keep what it frees, up to 64 MB; tell whether it will."""
    if sys.platform != "linux" or any(name in environ for name in _OWN_SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MAPPED_FROM) and mallopt(_TRIM_THRESHOLD, _KEPT))
