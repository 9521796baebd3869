"""One source into a partial file, over as many connections as pay.

The first connection begins where the contiguous part ends, and reads on for as long as what comes
next is nobody else's. The calling thread hashes. When it has waited for bytes for a while, the
network is what takes the time, and another connection is opened, each for a part of its own; a
machine that hashes slower than it receives never opens a second one. A source must say how long it
is, and which version of it a connection reads: parts of two versions do not make a file.

A connection that breaks leaves its part to the others. The attempt has failed when none is left.
"""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatch_mar.errors import DigestMismatchError, WeightsError
from hatch_mar.weights.cache import CACHE_VARIABLE
from hatch_mar.weights.digest import CHUNK
from hatch_mar.weights.partial import Origin, Partial, Span

if TYPE_CHECKING:
    from hatch_mar.weights.stores.protocol import Source, Stream

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here, and with the bytes of the whole file if they are known."""

MIB = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """How many connections to one source."""

    most: int = 8
    part: int = 16 * MIB
    """Bytes that a connection takes on at once."""
    smallest: int = 32 * MIB
    """With fewer bytes missing, nothing is gained by another connection."""
    idle: float = 0.2
    """Seconds of waiting for bytes after which another connection is opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be downloaded."""

    uri: str
    """Of the source, to tell it from others."""
    size: int | None
    """Bytes that were locked, if they were."""
    is_pinned: bool
    """Whether a digest decides in the end; otherwise, parts must be known to fit together."""


class Download:
    """One attempt. `run` is called once."""

    def __init__(
        self,
        source: Source,
        order: Order,
        partial: Partial,
        *,
        lanes: Lanes,
        progress: Progress,
        admit: Callable[[int], object],
    ) -> None:
        """Prepare to read `source`.

        Args:
            source: Where the bytes are.
            order: What is wanted of it.
            partial: What is already here, and where the rest goes.
            lanes: How many connections it may be.
            progress: Told about every step, in the calling thread.
            admit: Called with the bytes that are going to be written; may raise.
        """
        self._source = source
        self._order = order
        self._partial = partial
        self._lanes = lanes
        self._progress = progress
        self._admit = admit
        self._total = order.size
        self._version: str | None = None
        self._length: int | None = None
        self.streams = 0
        """How many were opened, one after another or at once."""
        self.is_resumed = partial.present > 0
        """Whether there were bytes before."""
        self.is_misfit = False
        """Whether parts came that are not of one file: the next attempt has one connection."""
        self._changed = threading.Condition()
        self._taken: dict[threading.Thread, Span] = {}
        self._streams: dict[threading.Thread, Stream] = {}
        self._limit = lanes.most
        self._error: OSError | None = None
        """What the last connection broke with that broke."""
        self._fatal: BaseException | None = None
        """What ends the attempt, whoever else is still at work."""
        self._is_over = False
        self._is_full = False

    def run(self) -> None:
        """Bring what is missing, and hash all of it.

        Raises:
            ConnectionError, TimeoutError: it stopped short; what has come is kept.
            OSError: the source cannot be read.
            DigestMismatchError: it has more bytes, or fewer, than were locked.
        """
        try:
            if not self._is_whole():
                self._start(self._begin())
            self._follow()
            if not self._order.is_pinned:
                self._look_again()
        finally:
            self._end()

    def _is_whole(self) -> bool:
        """Say whether nothing is missing: the process was killed just before the end."""
        known = self._partial.origin
        if known is not None and not self._order.is_pinned:
            return False  # whether this is the source's newest version is for it to say
        total = self._total if self._total is not None else known.total if known else None
        if total is None or not self._partial.present == self._partial.prefix == total:
            return False
        self._total = total
        return total > 0

    def _begin(self) -> Stream:
        """Open the first stream, and drop what does not fit to it."""
        if self._order.size is not None and self._partial.end > self._order.size:
            self._partial.discard()
        at = self._partial.prefix
        stream = self._source.open(at)
        try:
            origin = Origin.of(self._order.uri, stream.version, stream.total)
            if self._partial.present and not (stream.start == at and self._fits(origin)):
                self._partial.discard()
                self.is_resumed = False
                if stream.start:
                    stream.close()
                    stream = self._source.open()
                    origin = Origin.of(self._order.uri, stream.version, stream.total)
            if stream.start != self._partial.prefix:
                raise ConnectionError("the server starts in the middle")  # noqa: TRY301
            self._check_size(stream.total)
            self._version, self._length = stream.version, stream.total
            if stream.version is None or stream.total is None:
                self._limit = 1
            self._partial.belong_to(origin)
            self.streams = 1
        except BaseException:
            stream.close()
            raise
        return stream

    def _fits(self, origin: Origin) -> bool:
        """Say whether what is here may be of the same file as what `origin` has."""
        known = self._partial.origin
        if origin.total is not None and self._partial.end > origin.total:
            return False
        if not self._order.is_pinned:
            return origin == known and origin.version is not None
        if known is None or known.source != origin.source:
            return True  # of a mirror; the digest will tell
        return (known.version, known.total) == (origin.version, origin.total)

    def _check_size(self, total: int | None) -> None:
        wanted = self._order.size
        if None not in {total, wanted} and total != wanted:
            raise DigestMismatchError(f"{total} bytes, not {wanted}")
        self._total = wanted if wanted is not None else total
        if self._total is not None:
            self._admit(self._total - self._partial.present)

    def _look_again(self) -> None:
        """Make sure that the file did not change while it was read: no digest would tell."""
        if self._version is None or not self._total:
            return
        stream = self._source.open(self._total - 1, self._total)
        stream.close()
        if stream.version != self._version:
            raise ConnectionError("the file changed while it was read")

    # The calling thread.

    def _follow(self) -> None:
        """Hash what is contiguous, until everything is, or nothing more comes."""
        buffer = bytearray(CHUNK)
        partial, told, idle = self._partial, -1, 0.0
        while True:
            before = time.monotonic()
            with self._changed:
                waits = partial.prefix == partial.hashed and bool(self._taken)
                if waits and partial.present == told and self._fatal is None:
                    self._changed.wait(self._lanes.idle)
                if self._fatal is not None:
                    raise self._fatal
                if partial.is_due():
                    self._save()
                prefix, present, running = partial.prefix, partial.present, len(self._taken)
            idle += time.monotonic() - before if waits else 0.0
            if present != told:
                self._progress(present, self._total)
                told = present
            if partial.hashed < prefix:
                partial.hash_on(prefix, buffer)
            elif not running:
                break
            if idle >= self._lanes.idle:
                idle = 0.0
                self._widen(running)
        if self._error is not None and self._total != partial.hashed:
            raise self._error

    def _widen(self, running: int) -> None:
        """Open another connection if that may help."""
        with self._changed:
            missing = (self._total or 0) - self._partial.present
            may = running < self._limit and missing >= self._lanes.smallest
        if may:
            self._start(None)

    def _start(self, stream: Stream | None) -> None:
        thread = threading.Thread(target=self._work, args=(stream,), daemon=True)
        with self._changed:
            self._taken[thread] = (0, 0)
        thread.start()

    def _end(self) -> None:
        """Let nobody write any more, and write down what is here; a full disk helps nobody."""
        with self._changed:
            self._is_over = True
            streams = list(self._streams.values())
        for stream in streams:
            stream.close()
        if self._is_full:
            self._partial.discard()
        else:
            self._save()

    def _save(self) -> None:
        with self._writing():
            self._partial.save()

    # The threads of the connections.

    def _work(self, stream: Stream | None) -> None:
        """Read part after part: from `stream`, which has no end, as long as it lies on its way."""
        me = threading.current_thread()
        position = -1 if stream is None else stream.start
        try:
            while (part := self._take(me, position)) is not None:
                if stream is None or part[0] != position:
                    if stream is not None:
                        stream.close()
                    stream, position = self._open(part), -1
                with self._changed:
                    self._streams[me] = stream
                at = self._receive(stream, part)
                position = at if position >= 0 else -1
            if stream is not None and position == self._total and stream.read(1):
                raise DigestMismatchError(f"more than {position} bytes")  # noqa: TRY301
        except BaseException as error:  # noqa: BLE001 - the calling thread raises it
            self._fail(error)
        finally:
            if stream is not None:
                stream.close()
            with self._changed:
                del self._taken[me]
                self._streams.pop(me, None)
                self._changed.notify_all()

    def _take(self, me: threading.Thread, position: int) -> Span | None:
        """Return the part to read next: the one at `position` if it is free, else the first."""
        with self._changed:
            self._taken[me] = (0, 0)
            free = list(self._free())
            if not free or self._is_over:
                return None
            start, stop = next((span for span in free if span[0] == position), free[0])
            self._taken[me] = start, min(stop, start + self._lanes.part)
            return self._taken[me]

    def _free(self) -> Iterator[Span]:
        """Yield what is missing and nobody's."""
        taken = sorted(span for span in self._taken.values() if span[0] < span[1])
        for start, stop in self._partial.gaps(sys.maxsize if self._total is None else self._total):
            at = start
            for first, end in taken:
                if at < first < stop:
                    yield at, first
                if first < stop:
                    at = max(at, end)
            if at < stop:
                yield at, stop

    def _open(self, part: Span) -> Stream:
        stream = self._source.open(*part)
        self.streams += 1
        found = stream.start, stream.version, stream.total
        if found != (part[0], self._version, self._length):
            stream.close()
            self.is_misfit = True
            raise ConnectionError("the server gives another file than before, or other parts of it")
        return stream

    def _receive(self, stream: Stream, part: Span) -> int:
        """Read `part`; return where it ended."""
        at, stop = part
        while at < stop:
            data = stream.read(min(CHUNK, stop - at))
            with self._changed:
                if self._is_over:
                    raise ConnectionError("the attempt is over")
                if not data:
                    return self._reach_end(at)
                with self._writing():
                    self._partial.write(at, data)
                at += len(data)
                self._changed.notify_all()
        return at

    def _reach_end(self, at: int) -> int:
        """Take `at` for the size of the file, if nobody knows a better one."""
        if self._total is None:
            self._total = at
        if at < self._total:
            raise ConnectionError(f"ends after {at} of {self._total} bytes")
        return at

    def _fail(self, error: BaseException) -> None:
        """Leave the rest to the other connections, and open no more than they are."""
        with self._changed:
            if isinstance(error, OSError):
                self._error = error
                self._limit = max(1, len(self._taken) - 1)
            elif self._fatal is None:
                self._fatal = error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._is_full = error.errno in _FULL
            raise WeightsError(
                f"{self._partial.path}: cannot be written: {error.strerror}; make room, or set "
                f"{CACHE_VARIABLE} to a directory with room"
            ) from error
