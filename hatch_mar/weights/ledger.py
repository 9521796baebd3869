"""What is known of the files in a cache: which were verified, and when each was last used.

    <cache>/ledger/abcd....json    {"size": ..., "mtime_ns": ..., "models": ["digits 1.0"]}

A verified file is read-only, and its size and time of modification are written down here. As long
as both still are what was written down, nobody has written to it, and its bytes need not be hashed
again. That is no defence against somebody who forges times, nor against a disk that rots: for those
there is `hatch-mar cache verify`.

The entry's own time of modification is that of the last use: a file's time of access is kept by
few file systems. Nothing here fails where the cache may not be written; the entry is missing then,
and a file that has none is hashed before it is used.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

SECOND = 1_000_000_000
"""Nanoseconds. Archives and the layers of images keep whole seconds of a time."""

MOST_MODELS = 20
"""How many users of a file are kept in mind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of one file."""

    size: int
    mtime_ns: int
    """Of the file, when it was verified."""
    models: tuple[str, ...] = ()
    """Who used it: `name version`, the latest newcomers, the first one first."""

    def fits(self, status: os.stat_result) -> bool:
        """Say whether a file with this `status` is as it was when it was verified."""
        whole_second = self.mtime_ns - self.mtime_ns % SECOND
        return status.st_size == self.size and status.st_mtime_ns in (self.mtime_ns, whole_second)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The entries of one cache."""

    directory: Path

    def read(self, sha256: str) -> Entry | None:
        """Return the entry of a file, None if there is none that makes sense."""
        try:
            raw = json.loads(self._path(sha256).read_bytes())
            size, mtime_ns, models = raw["size"], raw["mtime_ns"], raw["models"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if type(size) is not int or type(mtime_ns) is not int or not isinstance(models, list):
            return None
        return Entry(size=size, mtime_ns=mtime_ns, models=tuple(map(str, models)))

    def last_use(self, sha256: str) -> float | None:
        """Return when a file was last used, in seconds since the epoch; None if nobody knows."""
        try:
            return self._path(sha256).stat().st_mtime
        except OSError:
            return None

    def vouch(self, sha256: str, status: os.stat_result) -> None:
        """Write down that the file with this `status` has just been verified."""
        known = self.read(sha256)
        models = known.models if known is not None else ()
        entry = Entry(size=status.st_size, mtime_ns=status.st_mtime_ns, models=models)
        if entry != known:  # to be verified is not to be used
            self._write(sha256, entry)

    def note_use(self, sha256: str, model: str = "") -> None:
        """Write down that the file is used now, by `model` if that is known."""
        entry = self.read(sha256)
        if entry is not None and model and model not in entry.models:
            models = (*entry.models, model)[-MOST_MODELS:]
            self._write(sha256, replace(entry, models=models))
        with suppress(OSError):
            os.utime(self._path(sha256))

    def forget(self, sha256: str) -> None:
        """Remove the entry of a file that is gone, or that nobody should trust any more."""
        with suppress(OSError):
            self._path(sha256).unlink()

    def _path(self, sha256: str) -> Path:
        return self.directory / f"{sha256}.json"

    def _write(self, sha256: str, entry: Entry) -> None:
        """Replace an entry at once, so that nobody ever reads half of one."""
        with suppress(OSError):
            self.directory.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self.directory, prefix=".")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump(asdict(entry), file)
                Path(name).chmod(0o644)
                Path(name).replace(self._path(sha256))
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
