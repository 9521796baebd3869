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
_LINES_AT_ONCE = 200
"""Answers of which the lines are made together: a wait that no client notices, some 0.1 ms."""
_MILLIS = tuple(f"{number:03d}" for number in range(1000))


def describe(client: tuple[str, int] | None, request_line: str) -> str:
    """Return the middle of a line: `client` is host and port, `request_line` `GET / HTTP/1.1`.

    A connection whose requests are all alike makes it once.
    """
    who = f"/{client[0]}:{client[1]}" if client else "-"
    return f' - {who} "{request_line}" '


class LineLog:
    """Collects lines, each with its time, and hands them to `write` in blocks."""

    def __init__(self, loop: AbstractEventLoop, write: Callable[[bytes], object]) -> None:
        """Write with `write`, which gets whole lines, UTF-8; timers run on `loop`."""
        self._loop = loop
        self._write = write
        self._lines: list[str] = []
        self._second = 0
        self._until = 0
        self._start = ""

    def add_line(self, text: str) -> None:
        """Add a line: the time, and `text`, which begins with what is to be between them."""
        self._collect(f"{self._stamp(time.time())}{text}\n")

    def _stamp(self, now: float) -> str:
        """Return local time to the millisecond; lines of one second share the most of it."""
        if not self._second <= now < self._until:
            self._second = second = int(now)
            self._until = second + 1
            self._start = time.strftime("%Y-%m-%dT%H:%M:%S,", time.localtime(second))
        return self._start + _MILLIS[int((now - self._second) * 1000)]

    def _collect(self, line: str) -> None:
        lines = self._lines
        if not lines:
            self._loop.call_later(_FLUSH_AFTER, self.flush)
        lines.append(line)
        if len(lines) >= _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if self._lines:
            block = "".join(self._lines).encode("utf-8", "backslashreplace")
            self._lines.clear()
            self._write(block)


class AccessLog(LineLog):
    """Has a line for every answer; lines are made some hundred at a time, between answers."""

    def __init__(self, loop: AbstractEventLoop, write: Callable[[bytes], object]) -> None:
        """Write with `write`; see `LineLog`."""
        super().__init__(loop, write)
        self._answers: list[tuple[float, str, int, float]] = []

    def add(self, who_and_what: str, status: int, seconds: float, request_id: str = "") -> None:  # noqa: ARG002 - for logs that have a place for it
        """Note one answer, which took `seconds`; the first part is made by `describe`."""
        answers = self._answers
        answers.append((time.time(), who_and_what, status, seconds))
        if len(answers) == 1 and not self._lines:
            self._loop.call_later(_FLUSH_AFTER, self.flush)
        elif len(answers) >= _LINES_AT_ONCE:
            self._make_lines()
            if len(self._lines) >= _FLUSH_AT:
                self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        self._make_lines()
        super().flush()

    def _make_lines(self) -> None:
        stamp = self._stamp
        self._lines += [
            f"{stamp(when)}{who_and_what}{status} {int(seconds * 1000)}\n"
            for when, who_and_what, status, seconds in self._answers
        ]
        self._answers.clear()


def write_to_stdout(block: bytes) -> None:
    """Write all of `block` to file descriptor 1; a closed pipe loses the log, not the server."""
    write_to(1, block)


def write_to(descriptor: int, block: bytes) -> None:
    """Write all of `block`, as far as somebody reads it."""
    rest = memoryview(block)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except OSError:
            return
