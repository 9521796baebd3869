"""Bodies of megabytes, there and back, and what is left of them."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.archives import write_mar
from tests.support.runner import Runner, start_runner
from tests.support.wire import connect, request

if TYPE_CHECKING:
    from collections.abc import Iterator

BOUNCE = """
    import os

    def handle(data, context):
        if data is None:
            return None
        if data[0]["body"][:3] == b"die":
            os._exit(3)
        return [row["body"] for row in data]
"""
SIZE = 3_000_000
AT_REST = 1 + 8
"""Memories that the door may have open when it holds no body: the page of the worker, and what it
keeps for bodies to come."""
MANY = AT_REST + 3
"""So many bodies, if one memory is left of each, are too many."""


def post(body: bytes) -> bytes:
    """Return a request that `bounce` answers with `body`."""
    return request("POST", "/predictions/bounce", body, {"Content-Type": "application/x-any"})


def count_memories(runner: Runner) -> int:
    """Count the nameless memories that the door has open."""
    count = 0
    for link in Path(f"/proc/{runner.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += "memfd:" in str(link.readlink())
    return count


def await_rest(runner: Runner) -> None:
    """Return when no more are open than may be; the test's time limit is the limit."""
    while count_memories(runner) > AT_REST:
        time.sleep(0.005)


@pytest.fixture(scope="module")
def bounce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Return a server of `bounce`, on one port."""
    with start_runner(str(write_mar(tmp_path_factory.mktemp("large"), "bounce", BOUNCE))) as runner:
        assert runner.exited() is None, runner.output()
        yield runner


def test_large_and_small_bodies_there_and_back(bounce: Runner) -> None:
    with connect(bounce.url) as wire:
        for size in (SIZE, 10, SIZE + 1, 0, 700_000, SIZE):
            body = os.urandom(size)
            wire.send(post(body))
            assert wire.read().body == body


def test_large_bodies_one_behind_the_other(bounce: Runner) -> None:
    bodies = [os.urandom(1_500_000), b"small", os.urandom(1_500_001)]
    with connect(bounce.url) as wire:
        wire.send(b"".join(map(post, bodies)))
        assert [wire.read().body for _ in bodies] == bodies


def test_a_client_that_is_slow_to_read_gets_all_of_it_and_then_the_next(bounce: Runner) -> None:
    body = os.urandom(6_000_000)
    with connect(bounce.url) as slow, connect(bounce.url) as quick:
        slow.send(post(body) + post(b"next"))
        quick.send(post(b"other"))
        assert quick.read().body == b"other"
        assert slow.read().body == body
        assert slow.read().body == b"next"


def test_nothing_is_left_of_large_bodies(bounce: Runner) -> None:
    with connect(bounce.url) as wire:
        for number in range(MANY):
            wire.send(post(bytes([number]) * SIZE))
            assert wire.read().body == bytes([number]) * SIZE
        await_rest(bounce)


def test_nothing_is_left_of_a_body_whose_client_goes_away(bounce: Runner) -> None:
    with ExitStack() as stack:
        for _ in range(MANY):
            stack.enter_context(connect(bounce.url)).send(post(bytes(SIZE))[:-1])
        while count_memories(bounce) < MANY:
            time.sleep(0.005)
    await_rest(bounce)


def test_nothing_is_left_of_a_body_that_its_worker_died_over(bounce: Runner) -> None:
    with connect(bounce.url) as wire:
        wire.send(post(b"die" + bytes(SIZE)))
        assert wire.read().status == 500
    with connect(bounce.url) as wire:
        for _ in range(MANY):
            wire.send(post(bytes(SIZE)))
            assert wire.read().body == bytes(SIZE)
        await_rest(bounce)


def test_a_door_that_dies_leaves_no_worker_that_could_hold_memory(tmp_path: Path) -> None:
    with start_runner(str(write_mar(tmp_path, "bounce", BOUNCE))) as runner:
        with connect(runner.url) as wire:
            wire.send(post(bytes(SIZE)))
            wire.read()
        children = Path(f"/proc/{runner.process.pid}/task/{runner.process.pid}/children")
        (worker,) = children.read_text(encoding="ascii").split()
        runner.process.kill()
        runner.process.wait()
        while Path("/proc", worker).exists():
            time.sleep(0.005)
