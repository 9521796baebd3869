"""What serving costs: a handler that does nothing, so that all the time is the server's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.load import BODY, ECHO, check_answers, need_wrk
from benchmarks.peers import PEERS
from benchmarks.peers.python_servers import ASYNCIO
from benchmarks.rounds import Task, time_servers

if TYPE_CHECKING:
    from collections.abc import Sequence

CEILING = ASYNCIO.name


def run_echo(
    names: Sequence[str], *, rounds: int, seconds: float, connections: Sequence[int]
) -> dict[str, Any]:
    """Time every peer `rounds` times, one after the other within a round; return all points."""
    need_wrk()
    peers = [PEERS[name] for name in names]
    versions = {peer.name: dict(peer.prepare()) for peer in peers}
    task = Task(name="echo", ask=ECHO, check=check_answers)
    points = time_servers(peers, [task], rounds=rounds, seconds=seconds, connections=connections)
    return {
        "rounds": rounds,
        "seconds": seconds,
        "connections": list(connections),
        "body": BODY,
        "versions": versions,
        "points": points,
    }
