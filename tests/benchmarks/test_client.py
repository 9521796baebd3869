from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.client import (
    NO_ANSWER,
    offer,
    percentile,
    press_slowly,
    read_head,
    schedule,
    steady_rate,
)
from benchmarks.load import Ask
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

ASK = Ask(body=b"body", content_type="text/plain")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextmanager
def answering(answer: Callable[[], Awaitable[bytes]]) -> Iterator[int]:
    """Serve in a thread of its own; every request gets what `answer` returns. Yield the port."""
    ready, ports = threading.Event(), list[int]()
    loop = asyncio.new_event_loop()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().partition(b"length: ")[2].split()[0]))
                writer.write(await answer())
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stopping.wait()
        server.close()

    stopping = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


async def ok() -> bytes:
    return OK


async def busy() -> bytes:
    return BUSY


def test_requests_are_due_at_a_constant_rate() -> None:
    assert schedule(4, 1.5) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]


@given(st.floats(1, 1000), st.floats(0.1, 10))
def test_the_schedule_keeps_to_rate_and_time(rate: float, seconds: float) -> None:
    dues = schedule(rate, seconds)
    assert abs(len(dues) - rate * seconds) <= 0.5
    assert all(due <= seconds for due in dues)


def test_a_request_is_sent_when_it_is_due_whether_or_not_there_are_answers() -> None:
    waiting: list[asyncio.Future[bytes]] = []

    async def answer_when_five_wait() -> bytes:
        mine: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        waiting.append(mine)
        if len(waiting) == 5:
            for one in waiting:
                one.set_result(OK)
        return await mine

    with answering(answer_when_five_wait) as port:
        answered = offer(port, "/", ASK, schedule(10, 0.5))
    assert [one.status for one in answered] == [200] * 5
    assert all(one.sent >= one.due for one in answered)
    # The first one waited for the last to be due, and its latency says so.
    assert answered[0].latency > answered[4].due
    assert answered[0].latency > answered[4].latency


def test_what_was_refused_and_what_had_no_answer_are_told_apart() -> None:
    with answering(busy) as port:
        assert [one.status for one in offer(port, "/", ASK, [0.0, 0.01])] == [503, 503]
    assert offer(free_ports(1)[0], "/", ASK, [0.0])[0].status == NO_ANSWER


def test_a_few_slow_answers_have_a_rate() -> None:
    with answering(ok) as port:
        load = press_slowly(port, "/", ASK, connections=2, seconds=0.0)
    assert load.requests == 4
    assert load.rate > 0
    assert 0 < load.p50 <= load.p99


def test_a_refusal_ends_a_timing() -> None:
    with answering(busy) as port, pytest.raises(SystemExit, match="failed"):
        press_slowly(port, "/", ASK, connections=1, seconds=0.1)


def test_the_rate_is_of_whole_batches() -> None:
    # Batches of four every second: the first one says when the clock starts.
    times = [1.0] * 4 + [2.0] * 4 + [3.0] * 4
    assert steady_rate(times, 4) == 4.0


@pytest.mark.parametrize("times", [[], [1.0, 2.0], [1.0, 1.0, 1.0]])
def test_too_few_answers_have_no_rate(times: list[float]) -> None:
    with pytest.raises(ValueError, match="too few"):
        steady_rate(times, 2)


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 1.0), (50, 2.0), (75, 3.0), (76, 4.0), (99, 4.0), (100, 4.0)]
)
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(0, 100))
def test_no_more_than_the_rest_is_above_a_percentile(values: list[float], share: int) -> None:
    found = percentile(values, share)
    above = sum(value > found for value in values)
    assert found in values
    assert above * 100 <= len(values) * (100 - share)


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="no value"):
        percentile([], 50)


def test_a_head_says_how_long_the_body_is_and_whether_the_connection_stays() -> None:
    assert read_head(OK[:-2]) == (200, 2, True)
    assert read_head(BUSY) == (503, 0, False)
    with pytest.raises(ValueError, match="without a content-length"):
        read_head(b"HTTP/1.1 200 OK\r\n\r\n")
