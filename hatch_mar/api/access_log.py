"""The access log, in TorchServe's line format.

    2026-11-21T07:48:53,250 - /127.0.0.1:49404 "GET /ping HTTP/1.1" 200 3

Local time, client, request line, status, milliseconds. Lines are collected and written a few times
a second, in one system call: a write of its own would cost more than the request.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

_FLUSH_AFTER = 0.25
"""Seconds that a line may wait."""
_FLUSH_AT = 2000
"""Lines that may wait."""


class AccessLog:
    """Collects lines and hands them to `write` in blocks."""

    def __init__(self, loop: AbstractEventLoop, write: Callable[[bytes], object]) -> None:
        """Write with `write`, which gets whole lines, UTF-8; timers run on `loop`."""
        self._loop = loop
        self._write = write
        self._lines: list[str] = []
        self._second = 0
        self._stamp = ""

    def add(self, client: str, request_line: str, status: int, seconds: float) -> None:
        """Note one answer: `request_line` is `GET /ping HTTP/1.1`, `seconds` what it took."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))
        lines = self._lines
        if not lines:
            self._loop.call_later(_FLUSH_AFTER, self.flush)
        lines.append(
            f"{self._stamp},{int((now - second) * 1000):03d} - {client} "
            f'"{request_line}" {status} {int(seconds * 1000)}\n'
        )
        if len(lines) >= _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if self._lines:
            block = "".join(self._lines).encode("utf-8", "backslashreplace")
            self._lines.clear()
            self._write(block)


def write_to_stdout(block: bytes) -> None:
    """Write all of `block` to file descriptor 1; a closed pipe loses the log, not the server."""
    rest = memoryview(block)
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except OSError:
            return
