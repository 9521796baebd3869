"""More than a server can do: a handler that sleeps, asked at a constant rate, come what may.

It sleeps, so that the client has a core to itself. Capacity is what batches of the full size would
give without any server, so nobody can reach it. What is good is an answer that comes in time.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.apps.works import FIXED_SECONDS, SECONDS_PER_ITEM, batch_size
from benchmarks.client import offer, percentile, schedule
from benchmarks.load import Ask, check_each
from benchmarks.peers.work_servers import hatch_mar, mosec, torchserve
from benchmarks.rounds import Task, running
from tests.support.environment import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.client import Answered
    from benchmarks.peers.peer import Peer
    from benchmarks.rounds import Running

TASK = "sleep-8"
BOUND_MS = 150
BOUNDED = f"hatch-mar, maxQueueDelay {BOUND_MS}"
SERVERS: Mapping[str, Callable[[], Peer]] = {
    "hatch-mar": lambda: hatch_mar([TASK]),
    BOUNDED: lambda: hatch_mar([TASK], config=f"maxQueueDelay: {BOUND_MS}\n", name=BOUNDED),
    # By itself its queue holds ten times as many, which all wait for seconds.
    "mosec": lambda: mosec([TASK], ["--capacity=100"]),
    "torchserve": lambda: torchserve([TASK]),
}
"""With the queues that they have by default, or better ones."""
LOADS = (0.5, 1.0, 2.0)
IN_TIME = 1.0
"""Seconds after which an answer helps nobody any more."""
SETTLING = 0.4
"""Share of a point in which the queue fills, be it a long one: it does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """One server in one round at one load. Latencies in ms, from when the request was due."""

    peer: str
    round: int
    load: float
    """What was offered, of the capacity."""
    goodput: float
    """Answers in time, of the capacity."""
    answered: float
    """Share of the requests that got an answer, in time or not."""
    refused: float
    """Share of the requests that were refused at once or later."""
    failed: float
    """Share of the requests that got no answer at all."""
    p50: float
    """Of the requests that were answered."""
    p99: float
    most: float
    refused_p99: float
    """How long a refusal took; 0 where there was none."""
    late: float
    """How late the client itself was at the most."""


def capacity() -> float:
    """Return the requests a second of a handler that is always given a full batch."""
    size = batch_size(TASK)
    return size / (FIXED_SECONDS + SECONDS_PER_ITEM * size)


def batch_ms() -> float:
    """Return how long a full batch takes, which an answer takes on top of its wait."""
    return (FIXED_SECONDS + SECONDS_PER_ITEM * batch_size(TASK)) * 1000


def run_overload(
    names: Sequence[str], *, rounds: int, seconds: float, loads: Sequence[float]
) -> dict[str, Any]:
    """Offer every server each of `loads`, one after the other, in `rounds` rounds."""
    peers = [SERVERS[name]() for name in names]
    versions = {peer.name: dict(peer.prepare()) for peer in peers}
    asks = [
        Ask(body=json.dumps({"number": number}).encode(), content_type="application/json")
        for number in range(16)
    ]

    def check(port: int, path: str) -> None:
        check_each(port, path, asks, lambda number, answer: json.loads(answer)["number"] == number)

    task = Task(name=TASK, ask=asks[0], check=check)
    taken: list[Overload] = []
    for number in range(rounds):
        turn = number % len(peers)
        for peer in (*peers[turn:], *peers[:turn]):
            say(f"round {number + 1} of {rounds}: {peer.name}")
            with running(peer, [task], number) as server:
                _offer(server, task, 1.0, min(2.0, seconds))
                for load in loads:
                    answered = _offer(server, task, load, seconds)
                    taken.append(summarise(answered, peer.name, number, load, seconds))
    return {
        "rounds": rounds,
        "seconds": seconds,
        "loads": list(loads),
        "capacity": capacity(),
        "in_time": IN_TIME,
        "bounded": {"peer": BOUNDED, "bound_ms": BOUND_MS, "batch_ms": batch_ms()},
        "versions": versions,
        "overloads": taken,
    }


def _offer(server: Running, task: Task, load: float, seconds: float) -> list[Answered]:
    dues = schedule(load * capacity(), seconds)
    return offer(server.port, server.peer.paths[task.name], task.ask, dues)


def summarise(
    answered: Sequence[Answered], peer: str, number: int, load: float, seconds: float
) -> Overload:
    """Sum up a point, but for the time in which it settled: what was due or done then."""
    settled = SETTLING * seconds
    right = [one for one in answered if one.status == http.client.OK]
    good = [one for one in right if settled <= one.done < seconds and one.latency <= IN_TIME]
    counted = [one for one in answered if one.due >= settled]
    by_status = {
        "answered": [one for one in counted if one.status == http.client.OK],
        "refused": [one for one in counted if one.status not in (http.client.OK, 0)],
        "failed": [one for one in counted if not one.status],
    }
    latencies = [one.latency * 1000 for one in by_status["answered"]] or [float("nan")]
    refusals = [one.latency * 1000 for one in by_status["refused"]] or [0.0]
    return Overload(
        peer=peer,
        round=number,
        load=load,
        goodput=len(good) / (seconds - settled) / capacity(),
        p50=percentile(latencies, 50),
        p99=percentile(latencies, 99),
        most=max(latencies),
        refused_p99=percentile(refusals, 99),
        late=max(one.sent - one.due for one in answered) * 1000,
        **{name: len(ones) / len(counted) for name, ones in by_status.items()},
    )
