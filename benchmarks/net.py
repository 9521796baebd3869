"""A small network, 784-256-10, as JSON and as raw bytes, with batches of 1 and of up to 32.

The same batch size for everybody; who waits for fuller batches does so for 5 ms, and hatch-mar, as
it is by default, does not wait. Beside the servers there is what hatch-mar's worker can do without
one, in batches of the very sizes that it was seen to have.
"""

from __future__ import annotations

import array
import json
import random
from typing import TYPE_CHECKING, Any

from benchmarks.apps.works import INPUTS
from benchmarks.ceiling import make_check, time_ceilings
from benchmarks.load import Ask, need_wrk
from benchmarks.peers.work_servers import MAKERS
from benchmarks.rounds import Task, time_servers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.rounds import Point, Running

TASKS = ("json-1", "json-32", "raw-1", "raw-32")
OURS = "hatch-mar"
CHECKED = 16
"""How many different requests each server must answer rightly."""


def run_net(
    names: Sequence[str],
    tasks: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    connections: Sequence[int],
) -> dict[str, Any]:
    """Time every peer with every task it can do; return all points."""
    need_wrk()
    peers = [MAKERS[name](tasks) for name in names]
    versions = {peer.name: dict(peer.prepare()) for peer in peers}
    given = {name: _make_task(name) for name in tasks}

    def after(running: Running, points: Sequence[Point]) -> list[Point]:
        if running.peer.name != OURS:
            return []
        most = max(connections)
        return [
            ceiling
            for point in points
            if point.connections == most
            for ceiling in time_ceilings(
                given[point.task],
                point.round,
                point.sizes or {},
                connections=most,
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
    return {
        "rounds": rounds,
        "seconds": seconds,
        "connections": list(connections),
        "tasks": list(tasks),
        "versions": versions,
        "points": points,
    }


def _make_task(name: str) -> Task:
    asks = [_make_ask(name, number) for number in range(CHECKED)]
    return Task(name=name, ask=asks[0], check=make_check(name, asks))


def _make_ask(task: str, number: int) -> Ask:
    """Return a request of numbers with four digits, as those of pixels are."""
    chance = random.Random(number)
    row = [round(chance.random(), 4) for _ in range(INPUTS)]
    if task.startswith("json"):
        return Ask(body=json.dumps(row).encode(), content_type="application/json")
    return Ask(body=array.array("f", row).tobytes(), content_type="application/octet-stream")
