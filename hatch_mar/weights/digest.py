"""Digests of files, and what a digest looks like."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from hatch_mar.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

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


def hash_file(path: Path) -> tuple[str, int]:
    """Return the sha256 and the size in bytes of the file at `path`, read in chunks.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()
