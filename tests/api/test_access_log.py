"""The access log's lines, and when they are written."""

from __future__ import annotations

import asyncio
import re

from hatch_mar.api.access_log import AccessLog, describe

LINE = rb'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} - /127\.0\.0\.1:49404 "GET /ping HTTP/1\.1" 200 3\n'


def test_line_is_torchserves() -> None:
    async def scenario() -> list[bytes]:
        blocks: list[bytes] = []
        log = AccessLog(asyncio.get_running_loop(), blocks.append)
        log.add(describe(("127.0.0.1", 49404), "GET /ping HTTP/1.1"), 200, 0.0039)
        log.flush()
        return blocks

    (block,) = asyncio.run(scenario())
    assert re.fullmatch(LINE, block), block


def test_lines_are_written_together_without_being_asked_for() -> None:
    async def scenario() -> bytes:
        written: asyncio.Queue[bytes] = asyncio.Queue()
        log = AccessLog(asyncio.get_running_loop(), written.put_nowait)
        log.add(" first ", 200, 0)
        log.add(" second ", 200, 0)
        return await written.get()

    assert asyncio.run(scenario()).count(b"\n") == 2


def test_many_lines_do_not_wait() -> None:
    async def scenario() -> int:
        blocks: list[bytes] = []
        log = AccessLog(asyncio.get_running_loop(), blocks.append)
        for _ in range(2000):
            log.add(" ", 200, 0)
        return len(blocks)

    assert asyncio.run(scenario()) == 1


def test_what_is_no_text_is_escaped() -> None:
    async def scenario() -> list[bytes]:
        blocks: list[bytes] = []
        log = AccessLog(asyncio.get_running_loop(), blocks.append)
        log.add(describe(None, "GET /\udcff HTTP/1.1"), 200, 0)
        log.flush()
        return blocks

    assert rb"GET /\udcff HTTP" in asyncio.run(scenario())[0]
