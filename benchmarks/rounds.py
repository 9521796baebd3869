"""Timing servers in turn: every server is started in every round, asked, warmed and timed."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.load import await_answer, press
from benchmarks.processes import Started, busy_cpu, free_port, started
from benchmarks.tally import TALLY, read_sizes, sizes_between
from tests.support.environment import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.load import Ask, Load
    from benchmarks.peers.peer import Peer
    from benchmarks.processes import Process

    After = Callable[["Running", Sequence["Point"]], Sequence["Point"]]
    """Called while a peer still runs, with its points of this round; returns more of them."""

CALM = 0.25
"""Cores that other work may keep busy while a point is taken."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One peer in one round, given one task at one number of connections."""

    peer: str
    task: str
    round: int
    connections: int
    rate: float
    """Requests a second."""
    p50: float
    """Milliseconds."""
    p99: float
    cpu_us: float = 0.0
    """CPU microseconds of all the server's processes, a request."""
    cpu_each: Mapping[str, float] | None = None
    """The same of each process that shows, by its name and in the order of their starts."""
    foreign: float = 0.0
    """Cores kept busy by anything but the server and the client: how disturbed the point is."""
    pss: float = 0.0
    """MB of all the server's processes afterwards."""
    sizes: Mapping[int, int] | None = None
    """How many batches of which size its handler was called with, if it counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a server is asked, and how it is seen that it answers rightly."""

    name: str
    ask: Ask
    check: Callable[[int, str], None]
    """Given port and path, it exits unless the answers are right."""
    press: Callable[[int, str, Ask, int, float], Load] = press
    """Given port, path, request, connections and seconds, it puts load on a server."""
    warm_up: float | None = None
    """Seconds of load before anything is timed, instead of the server's own wish."""


def time_servers(
    peers: Sequence[Peer],
    tasks: Sequence[Task],
    *,
    rounds: int,
    seconds: float,
    connections: Sequence[int],
    after: After | None = None,
) -> list[Point]:
    """Time every peer `rounds` times, one after the other within a round; return all points.

    The order shifts by one each round, so that nobody always follows the same neighbour. A peer
    gets the tasks that it has a path for. A single round is a trial of the harness: nothing is
    warmed up for it.
    """
    points: list[Point] = []
    for number in range(rounds):
        turn = number % len(peers)
        for peer in (*peers[turn:], *peers[:turn]):
            say(f"round {number + 1} of {rounds}: {peer.name}")
            mine = [task for task in tasks if task.name in peer.paths]
            with running(peer, mine, number) as server:
                taken: list[Point] = []
                for task in mine:
                    server.warm(task, trial=rounds == 1)
                    taken += [server.time_calmly(task, count, seconds) for count in connections]
                points += taken
                points += after(server, taken) if after else ()
    return points


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that is up and answers rightly."""

    peer: Peer
    round: int
    port: int
    server: Started
    tallies: Path
    """Where its handlers count their batches, if they do."""

    def warm(self, task: Task, *, trial: bool) -> None:
        seconds = self.peer.warm_up if task.warm_up is None else task.warm_up
        path = self.peer.paths[task.name]
        task.press(self.port, path, task.ask, 8, 0.2 if trial else seconds)

    def time_calmly(self, task: Task, connections: int, seconds: float) -> Point:
        """Time a point, and once more if it was disturbed; return the calmer one, fast or slow."""
        point = self.time_point(task, connections, seconds)
        if point.foreign <= CALM:
            return point
        again = self.time_point(task, connections, seconds)
        return min(point, again, key=lambda one: one.foreign)

    def time_point(self, task: Task, connections: int, seconds: float) -> Point:
        tally = self.tallies / task.name
        sizes, busy, cpu = read_sizes(tally), busy_cpu(), self.server.cpu_each()
        load = task.press(self.port, self.peer.paths[task.name], task.ask, connections, seconds)
        busy = busy_cpu() - busy
        used = {
            process: spent - cpu.get(process, 0.0)
            for process, spent in self.server.cpu_each().items()
        }
        total = sum(used.values())
        return Point(
            peer=self.peer.name,
            task=task.name,
            round=self.round,
            connections=connections,
            rate=load.rate,
            p50=load.p50,
            p99=load.p99,
            cpu_us=total / load.requests * 1e6,
            cpu_each=sum_by_name(used, load.requests),
            foreign=max(0.0, busy - total - load.client_cpu) / seconds,
            pss=self.server.pss(),
            sizes=sizes_between(sizes, read_sizes(tally)),
        )


@contextmanager
def running(peer: Peer, tasks: Sequence[Task], number: int) -> Iterator[Running]:
    """Start `peer`, and yield it once it has answered each of `tasks` rightly."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="hatch-mar-benchmark-") as name:
        scratch = Path(name)
        tallies = scratch / "tallies"
        tallies.mkdir()
        environ = {**ONE_THREAD, TALLY: str(tallies)}
        with started(peer.command(port, scratch), scratch, environ) as server:
            for task in tasks:
                path = peer.paths[task.name]
                await_answer(server, port, path, task.ask.body, task.ask.content_type)
                task.check(port, path)
            yield Running(peer, number, port, server, tallies)


def sum_by_name(used: Mapping[Process, float], requests: int) -> dict[str, float]:
    """Return CPU microseconds a request by the processes' names, but for those that hardly show."""
    shares: dict[str, float] = {}
    for process, seconds in used.items():
        shares[process.name] = shares.get(process.name, 0.0) + seconds / requests * 1e6
    least = 0.02 * sum(shares.values())
    return {name: share for name, share in shares.items() if share > least}
