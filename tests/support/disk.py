"""Files of gibibytes on a disk that may not have room for them."""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = bytes(2**20)
"""What becomes a hole."""
PERIOD = 0.02
"""Seconds between two looks."""
PUNCH_HOLE, KEEP_SIZE = 2, 1
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


@contextmanager
def zeros_take_no_room(directory: Path) -> Iterator[None]:
    """While the block runs, make holes of the zeros in files that grow at their ends.

    Whoever writes or reads them, in whatever process, sees no difference (fallocate(2)). A file
    system that has no holes keeps the zeros.

    Args:
        directory: Where to look, with all that is below it.
    """
    done = threading.Event()
    thread = threading.Thread(target=_dig, args=(directory, done))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _dig(directory: Path, done: threading.Event) -> None:
    ends: dict[int, int] = {}
    while not done.wait(PERIOD):
        for parent, _, names in os.walk(directory):
            for name in names:
                with suppress(OSError):  # it has gone, or may not be written
                    _dig_in(Path(parent, name), ends)


def _dig_in(path: Path, ends: dict[int, int]) -> None:
    """Make holes of what `path` has grown by since; `ends` are bytes, by inode."""
    status = path.lstat()
    start = ends.get(status.st_ino, 0)
    if start > status.st_size:  # another file that was given the same inode
        start = 0
    whole = status.st_size // len(BLOCK) * len(BLOCK)
    if start >= whole:
        return
    ends[status.st_ino] = whole
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        while start < whole:  # where there is only a hole left, SEEK_DATA fails
            start = os.lseek(file, start, os.SEEK_DATA) // len(BLOCK) * len(BLOCK)
            if os.pread(file, len(BLOCK), start) == BLOCK:
                _libc.fallocate(file, PUNCH_HOLE | KEEP_SIZE, start, len(BLOCK))
            start += len(BLOCK)
    finally:
        os.close(file)
