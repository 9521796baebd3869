"""Files of this machine, and of disks that it shares with others."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit


def open_source(uri: str, *, stall: float) -> FileSource:
    """Return the file at `uri`, `file:///...` or an absolute path."""
    del stall  # a disk has no manners to mind
    is_uri = uri[:5].lower() == "file:"
    return FileSource(Path(unquote(urlsplit(uri).path) if is_uri else uri))


@dataclass(frozen=True, slots=True)
class FileSource:
    """One file."""

    path: Path

    def open(self, start: int = 0, stop: int | None = None) -> FileStream:
        """See `Source.open`."""
        return FileStream(self.path, start, stop)

    def close(self) -> None:
        """See `Source.close`: there is nothing to let go of."""


class FileStream:
    """Part of a file."""

    def __init__(self, path: Path, start: int, stop: int | None) -> None:
        """Open the file at `path` at `start`, or at its end if it is shorter."""
        self._file = path.open("rb", buffering=0)
        status = os.fstat(self._file.fileno())
        self.total: int | None = status.st_size
        self.version: str | None = f"{status.st_ino}-{status.st_mtime_ns}"
        self.start = min(start, status.st_size)
        self._left = sys.maxsize if stop is None else stop - self.start
        self._file.seek(self.start)

    def read(self, count: int) -> bytes:
        """See `Stream.read`."""
        data = self._file.read(max(0, min(count, self._left)))
        self._left -= len(data)
        return data

    def close(self) -> None:
        """See `Stream.close`."""
        self._file.close()
