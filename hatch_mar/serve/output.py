"""What workers print, line by line: for logs that say which worker it was.

By default workers write to the runner's own stdout and stderr, and nothing here is used. Lines are
read in a thread: a model that prints much must not hold up the requests of the others.
"""

from __future__ import annotations

import os
import selectors
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

_CHUNK = 1 << 16
"""Bytes read at a time; also the most that a line may have, its rest being another line."""

Streams = tuple[int | None, int | None]
"""Descriptors of a process's stdout and stderr; None for those of its parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a line comes from."""

    worker: int
    """The worker's id, as in `describe`."""
    model: str
    version: str
    error: bool
    """Whether it was written to stderr."""

    @property
    def thread(self) -> str:
        """The name that TorchServe's logs have for it."""
        stream = "stderr" if self.error else "stdout"
        return f"W-{self.worker}-{self.model}_{self.version}-{stream}"


def inherit(worker: int, model: str, version: str) -> AbstractContextManager[Streams]:  # noqa: ARG001 - as WorkerOutput.open
    """Let a worker write where the runner writes."""
    return nullcontext((None, None))


class WorkerOutput:
    """Reads what workers write, and hands it on."""

    def __init__(self, on_line: Callable[[Source, str], object]) -> None:
        """Call `on_line` with every line, without its end, in a thread of our own."""
        self._on_line = on_line
        self._selector = selectors.DefaultSelector()
        self._rest: dict[int, bytes] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._closing = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="worker-output", daemon=True)
        self._thread.start()

    @contextmanager
    def open(self, worker: int, model: str, version: str) -> Iterator[Streams]:
        """Give a worker that is started within the block what it may write to."""
        ends = []
        for error in (False, True):
            read, write = os.pipe()
            os.set_blocking(read, False)
            ends.append(write)
            source = Source(worker=worker, model=model, version=version, error=error)
            with self._lock:
                self._rest[read] = b""
                self._selector.register(read, selectors.EVENT_READ, source)
        os.write(self._wake_write, b"!")
        try:
            yield ends[0], ends[1]
        finally:
            for end in ends:
                os.close(end)

    def close(self) -> None:
        """Hand on what was written so far, and stop."""
        self._closing = True
        os.write(self._wake_write, b"!")
        self._thread.join()
        for descriptor in (*self._rest, self._wake_read, self._wake_write):
            os.close(descriptor)
        self._selector.close()

    def _run(self) -> None:
        while True:
            closing = self._closing
            # Once more after the word to close: what was written before it is read.
            ready = self._selector.select(0 if closing else None)
            read = [self._read(key.fd, key.data) for key, _ in ready]
            if closing and not any(read):
                return

    def _read(self, descriptor: int, source: Source | None) -> bool:
        """Take what there is; say whether it was a worker's."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if source is None:
            return False
        *lines, rest = (self._rest[descriptor] + data).split(b"\n")
        if not data or len(rest) >= _CHUNK:
            lines, rest = [*lines, rest] if rest else lines, b""
        self._rest[descriptor] = rest
        for line in lines:
            self._on_line(source, line.removesuffix(b"\r").decode("utf-8", "backslashreplace"))
        if not data:
            with self._lock:
                self._selector.unregister(descriptor)
                del self._rest[descriptor]
            os.close(descriptor)
        return bool(data)
