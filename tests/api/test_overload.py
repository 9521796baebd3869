"""Twice as many requests as can be answered, from clients that do not wait for each other."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from tests.support.archives import write_mar
from tests.support.runner import start_runner

if TYPE_CHECKING:
    from pathlib import Path

BATCH = 4
SECONDS = 2.5
RATE = 160.0
"""Twice what batches of four in 50 ms can answer."""
SLEEPING = """
    import time

    def handle(data, context):
        if data is None:
            return
        time.sleep(0.03 + 0.005 * len(data))
        return ["ok"] * len(data)
"""


class Crowd:
    """Clients, each with a connection and a request of its own."""

    def __init__(self, url: str, headers: str = "") -> None:
        self.address = urlsplit(url)
        self.request = (
            f"POST /predictions/slow HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n{headers}\r\na"
        ).encode()
        self.statuses: Counter[int] = Counter()
        self.retry_after: set[int] = set()

    async def rush(self) -> int:
        """Send requests at `RATE` for `SECONDS`; return how many were unanswered at the end."""
        clients = []
        start = time.monotonic()
        for number in range(int(RATE * SECONDS)):
            late = time.monotonic() - number / RATE - start
            await asyncio.sleep(max(0.0, -late))
            start += max(0.0, late)  # what this machine lost is lost: it does not come at once
            clients.append(asyncio.create_task(self.ask()))
        left = sum(not client.done() for client in clients)
        await asyncio.gather(*clients)
        return left

    async def ask(self) -> None:
        reader, writer = await asyncio.open_connection(self.address.hostname, self.address.port)
        writer.write(self.request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        self.statuses[int(head.split()[1])] += 1
        if "retry-after: " in head:
            self.retry_after.add(int(head.partition("retry-after: ")[2].split("\r\n")[0]))
        writer.close()
        await writer.wait_closed()


def test_the_queue_is_bounded_by_the_time_that_it_takes(tmp_path: Path) -> None:
    config = f"batchSize: {BATCH}\nmaxQueueDelay: 200\njobQueueSize: 1000\n"
    mar = write_mar(tmp_path, "slow", SLEEPING, config=config)
    with start_runner(str(mar)) as runner:
        crowd = Crowd(runner.url)
        left = asyncio.run(crowd.rush())
        explained = httpx.get(f"{runner.management_url}/models/slow/batching").json()
    # Unbounded, some 200 would wait by then. Bounded: four batches that wait, and one that runs;
    # the rest is for a machine that has other work.
    assert left <= 80
    assert set(crowd.statuses) == {200, 503}
    assert crowd.retry_after <= {1, 2}  # a first batch may be slow, and nothing else is known then
    assert 1 in crowd.retry_after
    assert explained["counts"]["refusedWait"] == crowd.statuses[503]
    assert explained["counts"]["refusedQueueFull"] == 0
    answered = {int(size): count for size, count in explained["batchSizes"].items()}
    assert sum(size * count for size, count in answered.items()) == crowd.statuses[200]
    # The worker never starves: all its batches are full but the first and the last ones.
    assert answered[BATCH] >= 0.7 * sum(answered.values())


def test_requests_that_are_accepted_meet_their_deadlines(tmp_path: Path) -> None:
    mar = write_mar(tmp_path, "slow", SLEEPING, config=f"batchSize: {BATCH}\n")
    with start_runner(str(mar)) as runner:
        crowd = Crowd(runner.url, "X-Deadline-Ms: 1000\r\n")
        asyncio.run(crowd.rush())
        explained = httpx.get(f"{runner.management_url}/models/slow/batching").json()
    assert set(crowd.statuses) <= {200, 503, 504}
    assert explained["counts"]["refusedWait"] == crowd.statuses[503] > 0
    assert explained["counts"]["deadlinesMissed"] == crowd.statuses[504]
    # What was accepted was answered, unless this machine had something else to do for long.
    assert crowd.statuses[504] <= 0.25 * crowd.statuses[200]
