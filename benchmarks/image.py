"""A model that takes its time: a network of ResNet-18's shape and 224 x 224 pixels, as raw bytes.

It shows what a server is worth where the model is the work. What the server adds shows with a
handler that does nothing with the same bytes, beside the bare protocol given the same.
"""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any

from benchmarks.apps.works import SIDE
from benchmarks.ceiling import make_check, time_ceilings
from benchmarks.client import press_slowly
from benchmarks.load import Ask, ask, need_wrk
from benchmarks.peers.python_servers import ASYNCIO
from benchmarks.peers.work_servers import MAKERS, fastapi, hatch_mar, mosec
from benchmarks.rounds import Task, time_servers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.rounds import Point, Running

TASKS = ("image-1", "image-8")
NOOP = "noop-1"
SERVERS = ("hatch-mar", "fastapi", "mosec", "torchserve")
OURS = "hatch-mar"
CHECKED = 2
NOOP_SECONDS = 2.0


def run_image(
    names: Sequence[str],
    tasks: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    connections: Sequence[int],
) -> dict[str, Any]:
    """Time the network at few connections, and the same bytes given to a no-op at one."""
    need_wrk()
    works = [task for task in tasks if task != NOOP]
    peers = [MAKERS[name](works) for name in names] if works else []
    versions = {peer.name: dict(peer.prepare()) for peer in peers}
    given = {name: _make_task(name) for name in works}

    def after(running: Running, points: Sequence[Point]) -> list[Point]:
        if running.peer.name != OURS:
            return []
        return [
            ceiling
            for point in points
            for ceiling in time_ceilings(
                given[point.task],
                point.round,
                point.sizes or {},
                connections=point.connections,
                seconds=seconds,
            )
        ]

    points = time_servers(
        peers,
        list(given.values()),
        rounds=rounds,
        seconds=seconds,
        connections=connections,
        after=after,
    )
    if NOOP in tasks:
        points += _time_noop(rounds=rounds, seconds=min(NOOP_SECONDS, seconds))
    return {
        "rounds": rounds,
        "seconds": seconds,
        "connections": list(connections),
        "tasks": list(tasks),
        "versions": versions,
        "points": points,
    }


def _time_noop(*, rounds: int, seconds: float) -> list[Point]:
    """Time servers that only take the image's bytes, one request after the other."""
    arguments = (*ASYNCIO.arguments, "ok")
    bare = dataclasses.replace(ASYNCIO, paths={NOOP: "/"}, arguments=arguments)
    peers = [bare, hatch_mar([NOOP]), mosec([NOOP]), fastapi([NOOP])]
    for peer in peers:
        peer.prepare()

    def check(port: int, path: str) -> None:
        answer = ask(port, path, request.body, request.content_type)
        if answer != (200, b"ok"):
            raise SystemExit(f"wrong answer: {answer}")

    request = make_image(0)
    task = Task(name=NOOP, ask=request, check=check)
    return time_servers(peers, [task], rounds=rounds, seconds=seconds, connections=[1])


def _make_task(name: str) -> Task:
    asks = [make_image(number) for number in range(CHECKED)]
    check = make_check(name, asks)
    return Task(name=name, ask=asks[0], check=check, press=press_slowly, warm_up=1.0)


def make_image(number: int) -> Ask:
    pixels = random.Random(number).randbytes(SIDE * SIDE * 3)
    return Ask(body=pixels, content_type="application/octet-stream")
