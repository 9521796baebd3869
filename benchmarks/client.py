"""Clients of our own, for what wrk cannot do: a constant rate, and rates of slow answers.

A constant rate is offered whether or not answers come: each request has a time when it is due, and
its latency counts from there, so that a server that falls behind cannot hide it (no coordinated
omission). Of tools that can do so none is in Debian or on PyPI.
"""

from __future__ import annotations

import asyncio
import http.client
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.load import Load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.load import Ask

MOST_SECONDS = 60.0
"""How long an answer may take before the client gives it up."""
AT_LEAST = 2
"""Requests on each connection, however long that takes: a rate needs some."""
NO_ANSWER = 0
"""Status of a request whose connection was refused or closed, or that was given up."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: when it was due, sent and answered, in seconds since the start."""

    due: float
    sent: float
    done: float
    status: int

    @property
    def latency(self) -> float:
        return self.done - self.due


def schedule(rate: float, seconds: float) -> list[float]:
    """Return when requests are due at `rate` a second, the first at 0, all before `seconds`."""
    return [number / rate for number in range(round(rate * seconds))]


def offer(port: int, path: str, request: Ask, dues: Sequence[float]) -> list[Answered]:
    """Send `request` at each of `dues`, on as many connections as it takes; return every answer."""
    return asyncio.run(_Client(port, path, request).offer(dues))


def press_slowly(port: int, path: str, request: Ask, connections: int, seconds: float) -> Load:
    """As `load.press`, for answers that come a few at a time: the rate is right for those, too.

    The clock runs from the moment when as many requests are answered as there are connections to
    the last answer: between the two are whole answers, or whole batches of them.
    """
    before = _own_cpu()
    answered = asyncio.run(_Client(port, path, request).press(connections, seconds))
    spent = _own_cpu() - before
    failed = [one for one in answered if one.status != http.client.OK]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(answered)} requests failed: {failed[:1]}")
    latencies = [one.latency * 1000 for one in answered]
    # What comes when no more is asked comes in smaller batches.
    busy = [one.done for one in answered if one.done <= seconds]
    times = busy if len(busy) > connections else [one.done for one in answered]
    return Load(
        rate=steady_rate(times, connections),
        p50=percentile(latencies, 50),
        p99=percentile(latencies, 99),
        requests=len(answered),
        client_cpu=spent,
    )


def steady_rate(times: Sequence[float], skipped: int) -> float:
    """Return the answers a second after the first `skipped` of them, given when each came.

    Raises:
        ValueError: there are no more than that, or all came at once.
    """
    ordered = sorted(times)
    if len(ordered) <= skipped or ordered[-1] == ordered[skipped - 1]:
        raise ValueError(f"{len(ordered)} answers are too few for a rate after {skipped}")
    return (len(ordered) - skipped) / (ordered[-1] - ordered[skipped - 1])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` that at least `share` percent of them do not exceed.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no value has no percentiles")
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 100)
    return ordered[max(0, int(rank) - 1)]


class _Client:
    """Connections that are kept, and opened where none is free."""

    def __init__(self, port: int, path: str, request: Ask) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        head += f"Content-Type: {request.content_type}\r\n"
        head += f"Content-Length: {len(request.body)}\r\n\r\n"
        self._port = port
        self._bytes = head.encode() + request.body
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._began = time.perf_counter()

    async def offer(self, dues: Sequence[float]) -> list[Answered]:
        self._began = time.perf_counter()
        running = []
        for due in dues:
            wait = due - self._now()
            if wait > 0:
                await asyncio.sleep(wait)
            running.append(asyncio.create_task(self._ask(due)))
        answered = await asyncio.gather(*running)
        self._close()
        return answered

    async def press(self, connections: int, seconds: float) -> list[Answered]:
        self._began = time.perf_counter()
        answered: list[Answered] = []

        async def repeat() -> None:
            asked = 0
            while asked < AT_LEAST or self._now() < seconds:
                asked += 1
                one = await self._ask(self._now())
                answered.append(one)
                if one.status != http.client.OK:
                    return

        await asyncio.gather(*(repeat() for _ in range(connections)))
        self._close()
        return answered

    async def _ask(self, due: float) -> Answered:
        sent = self._now()
        try:
            async with asyncio.timeout(MOST_SECONDS):
                status = await self._exchange()
        except (OSError, EOFError, ValueError):
            # The pool is not told: a connection that failed is not used again.
            status = NO_ANSWER
        return Answered(due, sent, self._now(), status)

    async def _exchange(self) -> int:
        reader, writer = await self._connect()
        try:
            writer.write(self._bytes)
            head = await reader.readuntil(b"\r\n\r\n")
            status, length, stays = read_head(head)
            await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        if stays:
            self._free.append((reader, writer))
        else:
            writer.close()
        return status

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            reader, writer = self._free.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    def _now(self) -> float:
        return time.perf_counter() - self._began

    def _close(self) -> None:
        for _, writer in self._free:
            writer.close()


def read_head(head: bytes) -> tuple[int, int, bool]:
    """Return the status of an answer, how long its body is, and whether the connection stays.

    Raises:
        ValueError: it does not say how long its body is.
    """
    first, *lines = head.decode("latin-1").lower().split("\r\n")
    fields = dict(
        line.split(": ", 1) if ": " in line else line.split(":", 1) for line in lines[:-2]
    )
    if "content-length" not in fields:
        raise ValueError(f"an answer without a content-length: {head!r}")
    stays = fields.get("connection", "") != "close"
    return int(first.split()[1]), int(fields["content-length"]), stays


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
