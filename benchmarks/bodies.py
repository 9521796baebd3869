"""Large bodies: 10 MB in, the same 10 MB out, with the limits raised that there are."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any

from benchmarks.load import Ask, check_each, need_wrk
from benchmarks.peers.python_servers import ASYNCIO
from benchmarks.peers.work_servers import fastapi, hatch_mar, mosec, torchserve
from benchmarks.rounds import Task, time_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.peers.peer import Peer

TASK = "bytes-1"
LIMIT = "100000000"
MAKERS: Mapping[str, Callable[[], Peer]] = {
    ASYNCIO.name: lambda: dataclasses.replace(ASYNCIO, paths={TASK: "/"}),
    "hatch-mar": lambda: hatch_mar(
        [TASK], ["--max-request-size", LIMIT, "--max-response-size", LIMIT]
    ),
    "fastapi": lambda: fastapi([TASK]),
    "mosec": lambda: mosec([TASK]),
    "torchserve": lambda: torchserve(
        [TASK], settings={"max_request_size": LIMIT, "max_response_size": LIMIT}
    ),
}


def run_bodies(
    names: Sequence[str],
    *,
    size: int,
    rounds: int,
    seconds: float,
    connections: Sequence[int],
) -> dict[str, Any]:
    """Time servers that send back the `size` bytes that they get."""
    need_wrk()
    peers = [MAKERS[name]() for name in names]
    versions = {peer.name: dict(peer.prepare()) for peer in peers}
    asks = [
        Ask(body=random.Random(number).randbytes(size), content_type="application/octet-stream")
        for number in range(2)
    ]

    def check(port: int, path: str) -> None:
        check_each(port, path, asks, lambda number, answer: answer == asks[number].body)

    task = Task(name=TASK, ask=asks[0], check=check)
    return {
        "rounds": rounds,
        "seconds": seconds,
        "size": size,
        "connections": list(connections),
        "versions": versions,
        "points": time_servers(
            peers, [task], rounds=rounds, seconds=seconds, connections=connections
        ),
    }
