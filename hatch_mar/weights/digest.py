"""Digests of files, and what a digest looks like."""

from __future__ import annotations

import hashlib
import os
import re
import time
from typing import TYPE_CHECKING

from hatch_mar.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNK = 1 << 20
"""How much is in memory at once."""
SETTLED = 2_000_000_000
"""Nanoseconds after which a change would show: file systems count time in steps."""
_known: dict[tuple[int, ...], str] = {}
"""Digests by what changes with the bytes."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_sha256(value: object) -> bool:
    """Say whether `value` is 64 lower-case hex digits."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def check_sha256(sha256: str) -> str:
    """Return `sha256` if it is 64 lower-case hex digits: it becomes part of paths.

    Raises:
        WeightsError: it is not.
    """
    if not is_sha256(sha256):
        raise WeightsError(f"{sha256!r} is no sha256: 64 lower-case hex digits")
    return sha256


def hash_file(
    path: Path, progress: Callable[[int, int | None], None] | None = None
) -> tuple[str, int]:
    """Return the sha256 and the size in bytes of the file at `path`, read in chunks.

    `progress` is told how many bytes have been hashed, and of how many.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        digest, done, chunk = hashlib.sha256(), 0, memoryview(bytearray(CHUNK))
        while count := file.readinto(chunk):
            digest.update(chunk[:count])
            done += count
            if progress is not None:
                progress(done, total)
        return digest.hexdigest(), done


def hash_once(path: Path) -> str:
    """Return the sha256 of the file at `path`, from memory if it has not changed since.

    A process that builds asks for the same big files again and again.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if stamp in _known:
        return _known[stamp]
    digest, _ = hash_file(path)
    if time.time_ns() - status.st_ctime_ns > SETTLED:
        _known[stamp] = digest
    return digest
