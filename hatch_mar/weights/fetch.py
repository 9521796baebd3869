"""Weights, from wherever they are into the cache, verified on the way.

Bytes go into a partial file and through a hash at once. An interrupted fetch is taken up where it
stopped, from any source: the digest decides in the end whether the parts fit together.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import shutil
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hatch_mar.errors import DigestMismatchError, OfflineError, WeightsError
from hatch_mar.weights.cache import CACHE_VARIABLE, Cache
from hatch_mar.weights.download import Download, Lanes, Order, Progress
from hatch_mar.weights.stores import open_source
from hatch_mar.weights.stores.protocol import STALL, BusyError
from hatch_mar.weights.uri import is_local, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from hatch_mar.weights.partial import Partial
    from hatch_mar.weights.reference import Reference

__all__ = ["Acquired", "Lanes", "Patience", "Progress", "acquire", "fetch", "is_offline"]

OFFLINE_VARIABLE = "HATCH_MAR_OFFLINE"

logger = logging.getLogger("hatch_mar.weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often to try a source again, and how long to wait before."""

    attempts: int = 5
    """Attempts in a row that bring nothing new."""
    first: float = 0.5
    """Seconds before the second attempt; each further wait is twice as long."""
    longest: float = 30.0
    longest_asked: float = 120.0
    """Seconds to wait at most when a server says how long (`Retry-After`)."""
    stall: float = STALL
    """Seconds without a byte after which an attempt has failed."""
    sleep: Callable[[float], object] = time.sleep
    jitter: Callable[[], float] = random.random
    """A number from 0 to 1: the share of the wait that is waited."""

    def wait(self, failures: int, *, asked: float = 0.0) -> None:
        """Sleep after the given number of failures, at random, so that many do not come at once.

        What a server has `asked` for is waited in full, up to `longest_asked`, and that on top.
        """
        own = min(self.first * 2 ** (failures - 1), self.longest) * self.jitter()
        self.sleep(min(asked, self.longest_asked) + own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquired:
    """What a source turned out to have."""

    sha256: str
    size: int
    path: Path
    """In the cache."""


def fetch(
    reference: Reference,
    cache: Cache,
    *,
    progress: Progress | None = None,
    environ: Mapping[str, str] = os.environ,
    patience: Patience | None = None,
    lanes: Lanes | None = None,
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
        with closing(cache.open_partial(reference.sha256)) as partial:
            _Transfer(
                name=reference.target,
                size=reference.size,
                sha256=reference.sha256,
                cache=cache,
                partial=partial,
                progress=progress or _silent,
                patience=patience or Patience(),
                lanes=lanes or Lanes(),
            ).bring(sources)
            return cache.publish(reference.sha256, partial)


def acquire(
    source: str,
    cache: Cache,
    *,
    progress: Progress | None = None,
    environ: Mapping[str, str] = os.environ,
    patience: Patience | None = None,
    lanes: Lanes | None = None,
) -> Acquired:
    """Fetch a file whose digest nobody knows yet, and keep it under what it turns out to be.

    An interrupted one is taken up where the source says that it still has the same version, and if
    the machine has not gone down since: no digest would tell that the parts do not fit together.

    Raises:
        OfflineError: the source is not on this machine, and `HATCH_MAR_OFFLINE` is set.
        WeightsError: the source cannot be read, or the cache cannot be written.
    """
    shown = redact(source)
    if is_offline(environ) and not is_local(source):
        raise OfflineError(
            f"{shown}: {OFFLINE_VARIABLE} forbids to fetch it; unset {OFFLINE_VARIABLE}"
        )
    key = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()
    with cache.lock(key), closing(cache.open_partial(key)) as partial:
        transfer = _Transfer(
            name=shown,
            size=None,
            sha256=None,
            cache=cache,
            partial=partial,
            progress=progress or _silent,
            patience=patience or Patience(),
            lanes=lanes or Lanes(),
        )
        try:
            transfer.insist(source)
        except OSError as error:
            raise WeightsError(f"{shown}: cannot be fetched: {error.strerror or error}") from error
        sha256, size = partial.hexdigest(), partial.hashed
        return Acquired(sha256=sha256, size=size, path=cache.publish(sha256, partial))


def is_offline(environ: Mapping[str, str]) -> bool:
    """Say whether `HATCH_MAR_OFFLINE` is set, to anything but a plain no."""
    return environ.get(OFFLINE_VARIABLE, "").strip().lower() not in {"", "0", "false", "no", "off"}


def _silent(done: int, total: int | None) -> None:
    del done, total


@dataclass(slots=True, kw_only=True)
class _Transfer:
    """Everything that is tried for one file, under its lock."""

    name: str
    """What messages call it."""
    size: int | None
    sha256: str | None
    """What was locked, if anything was."""
    cache: Cache
    partial: Partial
    progress: Progress
    patience: Patience
    lanes: Lanes

    def bring(self, sources: tuple[str, ...]) -> None:
        """Try `sources` in order until one has the right bytes."""
        failures: list[str] = []
        mismatch = True
        for source in sources:
            logger.info("fetching %s from %s", self.name, redact(source))
            try:
                self.insist(source)
            except DigestMismatchError as error:
                failures.append(f"{redact(source)}: {error}")
            except OSError as error:
                failures.append(f"{redact(source)}: {error.strerror or error}")
                mismatch = False
            else:
                return
            logger.warning("%s: %s", self.name, failures[-1])
        reasons = "; ".join(failures)
        if mismatch:
            raise DigestMismatchError(
                f"{self.name}: not what was locked: {reasons}; "
                "lock the new file, or restore the old one"
            )
        remedy = f"put that right, or put the file at {self.cache.path_of(self.sha256 or '')}"
        raise WeightsError(f"{self.name}: cannot be fetched: {reasons}; {remedy}")

    def insist(self, source: str) -> None:
        """Fetch from `source`, again and again as long as that brings it nearer."""
        failures, best = 0, self.partial.present
        lanes = replace(self.lanes, most=1) if is_local(source) else self.lanes
        with closing(open_source(source, stall=self.patience.stall)) as store:
            while True:
                order = Order(uri=source, size=self.size, is_pinned=self.sha256 is not None)
                download = Download(
                    store,
                    order,
                    self.partial,
                    lanes=lanes,
                    progress=self.progress,
                    admit=self._check_room,
                )
                try:
                    download.run()
                    self._check_digest(download)
                except (ConnectionError, TimeoutError) as error:
                    failures = 1 if self.partial.present > best else failures + 1
                    best = max(best, self.partial.present)
                    if failures >= self.patience.attempts:
                        raise
                    logger.info("%s: %s; trying again", redact(source), error)
                    asked = error.retry_after if isinstance(error, BusyError) else 0.0
                    self.patience.wait(failures, asked=asked)
                    if download.is_misfit:
                        lanes = replace(lanes, most=1)
                else:
                    return

    def _check_room(self, missing: int) -> None:
        if missing > shutil.disk_usage(self.partial.path.parent).free:
            raise WeightsError(
                f"{self.cache.directory}: no room for {self.name}, {missing} bytes; "
                f"make some, or set {CACHE_VARIABLE} to a directory with room"
            )

    def _check_digest(self, download: Download) -> None:
        found = self.partial.hexdigest()
        if self.sha256 in {None, found}:
            return
        self.partial.discard()
        if download.is_resumed or download.streams > 1:
            # The beginning may be of another file; from zero on, it is this source's word alone.
            download.is_misfit = True
            raise ConnectionError("the parts of two answers do not fit together")
        raise DigestMismatchError(f"sha256 {found}, not {self.sha256}")
