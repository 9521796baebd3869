"""Weights, from wherever they are into the cache, verified on the way.

Bytes go into a partial file and through a hash at once. An interrupted fetch is taken up where it
stopped, from any source: the digest decides in the end whether the parts fit together.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from hatch_mar.errors import DigestMismatchError, OfflineError, WeightsError
from hatch_mar.weights.cache import CACHE_VARIABLE, Cache
from hatch_mar.weights.stores import open_source
from hatch_mar.weights.stores.protocol import STALL
from hatch_mar.weights.uri import is_local, redact

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.weights.reference import Reference
    from hatch_mar.weights.stores.protocol import Stream

OFFLINE_VARIABLE = "HATCH_MAR_OFFLINE"
CHUNK = 1 << 20
"""How much is in memory at once."""

logger = logging.getLogger("hatch_mar.weights")

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here, and with the bytes of the whole file if they are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often to try a source again, and how long to wait before."""

    attempts: int = 5
    """Attempts in a row that bring nothing new."""
    first: float = 0.5
    """Seconds before the second attempt; each further wait is twice as long."""
    longest: float = 30.0
    stall: float = STALL
    """Seconds without a byte after which an attempt has failed."""
    sleep: Callable[[float], object] = time.sleep
    jitter: Callable[[], float] = random.random
    """A number from 0 to 1: the share of the wait that is waited."""

    def wait(self, failures: int) -> None:
        """Sleep after the given number of failures, at random, so that many do not come at once."""
        self.sleep(min(self.first * 2 ** (failures - 1), self.longest) * self.jitter())


def fetch(
    reference: Reference,
    cache: Cache,
    *,
    progress: Progress | None = None,
    environ: Mapping[str, str] = os.environ,
    patience: Patience | None = None,
) -> Path:
    """Return the path of the file that `reference` names, in the cache, fetched if need be.

    Any number of processes may do this at once: one fetches, the others wait for it.

    Raises:
        OfflineError: the file is not in the cache, and `HATCH_MAR_OFFLINE` is set.
        DigestMismatchError: the sources have other bytes than the author locked.
        WeightsError: no source can be read, or the cache cannot be written.
    """
    if cache.confirm(reference):
        return cache.path_of(reference.sha256)
    sources = (reference.source, *reference.mirrors)
    if is_offline(environ):
        sources = tuple(filter(is_local, sources))
        if not sources:
            raise OfflineError(
                f"{reference.target}: not in the cache, and {OFFLINE_VARIABLE} forbids to fetch it "
                f"from {redact(reference.source)}; put the file at "
                f"{cache.path_of(reference.sha256)}, or unset {OFFLINE_VARIABLE}"
            )
    with cache.lock(reference.sha256):
        if cache.is_unchanged(reference):  # another process has fetched it meanwhile
            return cache.path_of(reference.sha256)
        return _Fetch(reference, cache, progress, patience or Patience()).run(sources)


def is_offline(environ: Mapping[str, str]) -> bool:
    """Say whether `HATCH_MAR_OFFLINE` is set, to anything but a plain no."""
    return environ.get(OFFLINE_VARIABLE, "").strip().lower() not in {"", "0", "false", "no", "off"}


def _silent(done: int, total: int | None) -> None:
    del done, total


class _Fetch:
    """One fetch, under the lock. Knows at any time what the partial file holds."""

    def __init__(
        self, reference: Reference, cache: Cache, progress: Progress | None, patience: Patience
    ) -> None:
        self._reference = reference
        self._cache = cache
        self._progress = progress or _silent
        self._patience = patience
        self._partial = cache.partial_of(reference.sha256)
        self._hash = hashlib.sha256()
        self._size = 0

    def run(self, sources: tuple[str, ...]) -> Path:
        """Try `sources` in order until one has the right bytes."""
        self._take_up()
        if self._hash.hexdigest() == self._reference.sha256 and self._partial.exists():
            return self._cache.publish(self._reference.sha256)
        failures: list[str] = []
        mismatch = True
        for source in sources:
            logger.info("fetching %s from %s", self._reference.target, redact(source))
            try:
                self._insist(source)
                return self._cache.publish(self._reference.sha256)
            except DigestMismatchError as error:
                failures.append(f"{redact(source)}: {error}")
            except OSError as error:
                failures.append(f"{redact(source)}: {error.strerror or error}")
                mismatch = False
            logger.warning("%s: %s", self._reference.target, failures[-1])
        reasons = "; ".join(failures)
        if mismatch:
            raise DigestMismatchError(
                f"{self._reference.target}: not what was locked: {reasons}; "
                "lock the new file, or restore the old one"
            )
        raise WeightsError(f"{self._reference.target}: cannot be fetched: {reasons}")

    def _take_up(self) -> None:
        """Hash what an earlier fetch has left."""
        if not self._partial.exists():
            return
        with self._partial.open("rb") as file:
            while data := file.read(CHUNK):
                self._hash.update(data)
                self._size += len(data)
        if self._reference.size is not None and self._size > self._reference.size:
            self._discard()

    def _discard(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._hash = hashlib.sha256()
        self._size = 0

    def _insist(self, source: str) -> None:
        """Fetch from `source`, again and again as long as that brings it nearer."""
        failures, best = 0, self._size
        while True:
            try:
                self._attempt(source)
            except (ConnectionError, TimeoutError) as error:
                failures = 1 if self._size > best else failures + 1
                best = max(best, self._size)
                if failures >= self._patience.attempts:
                    raise
                logger.info("%s: %s; trying again", redact(source), error)
                self._patience.wait(failures)
            else:
                return

    def _attempt(self, source: str) -> None:
        kept = self._size
        stream = open_source(source, stall=self._patience.stall).open(kept)
        try:
            if stream.start != kept:  # the store cannot start in the middle
                self._discard()
            self._check_size(stream.total)
            self._receive(stream)
        finally:
            stream.close()
        self._check_digest(resumed=stream.start > 0)

    def _check_size(self, total: int | None) -> None:
        wanted = self._reference.size
        if None not in {total, wanted} and total != wanted:
            raise DigestMismatchError(f"{total} bytes, not {wanted}")
        expected = wanted if wanted is not None else total
        if expected is not None and expected - self._size > self._free():
            raise WeightsError(
                f"{self._cache.directory}: no room for {self._reference.target}, {expected} bytes; "
                f"make some, or set {CACHE_VARIABLE} to a directory with room"
            )

    def _free(self) -> int:
        return shutil.disk_usage(self._partial.parent).free

    def _receive(self, stream: Stream) -> None:
        expected = self._reference.size if self._reference.size is not None else stream.total
        with self._partial.open("r+b" if self._partial.exists() else "xb") as file:
            file.seek(self._size)
            file.truncate()
            while data := stream.read(CHUNK):
                self._write(file, data)
                if expected is not None and self._size > expected:
                    self._discard()
                    raise DigestMismatchError(f"more than {expected} bytes")
                self._progress(self._size, expected)
        if expected is not None and self._size < expected:
            raise ConnectionError(f"ends after {self._size} of {expected} bytes")

    def _write(self, file: BinaryIO, data: bytes) -> None:
        try:
            file.write(data)
            file.flush()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self._discard()  # a full disk helps nobody
            raise WeightsError(
                f"{self._partial}: cannot be written: {error.strerror}; make room, or set "
                f"{CACHE_VARIABLE} to a directory with room"
            ) from error
        self._hash.update(data)
        self._size += len(data)

    def _check_digest(self, *, resumed: bool) -> None:
        found = self._hash.hexdigest()
        if found == self._reference.sha256:
            return
        self._discard()
        if resumed:
            # The beginning may be of another file; from zero on, it is this source's word alone.
            raise ConnectionError("the parts of two attempts do not fit together")
        raise DigestMismatchError(f"sha256 {found}, not {self._reference.sha256}")
