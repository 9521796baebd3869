"""What serving costs: a handler that does nothing, so that all the time is the server's."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import BODY, await_answer, check_answers, need_wrk, press
from benchmarks.peers import PEERS
from benchmarks.processes import Started, busy_cpu, free_port, started
from tests.support.environment import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.peers.peer import Peer

CALM = 0.25
"""Cores that other work may keep busy while a point is taken."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One peer in one round at one number of connections."""

    peer: str
    round: int
    connections: int
    rate: float
    """Requests a second."""
    p50: float
    """Milliseconds."""
    p99: float
    cpu_us: float
    """CPU microseconds of all the server's processes, a request."""
    foreign: float
    """Cores kept busy by anything but the server and wrk: how disturbed the point is."""
    pss: float
    """MB of all the server's processes afterwards."""


def run_echo(
    names: Sequence[str], *, rounds: int, seconds: int, connections: Sequence[int]
) -> dict[str, Any]:
    """Time every peer `rounds` times, one after the other within a round; return all points.

    The order shifts by one each round, so that nobody always follows the same neighbour.
    """
    need_wrk()
    peers = [PEERS[name] for name in names]
    versions = {peer.name: dict(peer.prepare()) for peer in peers}
    points: list[Point] = []
    for number in range(rounds):
        turn = number % len(peers)
        for peer in peers[turn:] + peers[:turn]:
            say(f"round {number + 1} of {rounds}: {peer.name}")
            # Points of a second are a trial of the harness: no need for a warm server.
            with _running(peer, number, trial=seconds == 1) as running:
                points += [running.time_calmly(count, seconds) for count in connections]
    return {
        "rounds": rounds,
        "seconds": seconds,
        "connections": list(connections),
        "body": BODY,
        "versions": versions,
        "points": points,
    }


@dataclass(frozen=True, slots=True)
class _Running:
    """A peer that is up, warm and answers rightly."""

    peer: Peer
    round: int
    port: int
    server: Started

    def time_calmly(self, connections: int, seconds: int) -> Point:
        """Time a point, and once more if it was disturbed; return the calmer one, fast or slow."""
        point = self.time_point(connections, seconds)
        if point.foreign <= CALM:
            return point
        again = self.time_point(connections, seconds)
        return min(point, again, key=lambda one: one.foreign)

    def time_point(self, connections: int, seconds: int) -> Point:
        busy, cpu = busy_cpu(), self.server.cpu()
        load = press(self.port, self.peer.path, connections=connections, seconds=seconds)
        busy, cpu = busy_cpu() - busy, self.server.cpu() - cpu
        return Point(
            peer=self.peer.name,
            round=self.round,
            connections=connections,
            rate=load.rate,
            p50=load.p50,
            p99=load.p99,
            cpu_us=cpu / load.requests * 1e6,
            foreign=max(0.0, busy - cpu - load.client_cpu) / seconds,
            pss=self.server.pss(),
        )


@contextmanager
def _running(peer: Peer, number: int, *, trial: bool) -> Iterator[_Running]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="hatch-mar-benchmark-") as name:
        scratch = Path(name)
        with started(peer.command(port, scratch), scratch, ONE_THREAD) as server:
            await_answer(server, port, peer.path, BODY.encode(), "application/json")
            check_answers(port, peer.path)
            press(port, peer.path, connections=8, seconds=1 if trial else round(peer.warm_up))
            yield _Running(peer, number, port, server)
