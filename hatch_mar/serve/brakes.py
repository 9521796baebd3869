"""Workers that are not read from, because a client does not keep up with its stream.

What a worker then still sends waits in its socket, and soon the handler does, so that a stream
takes no more memory than the pieces that are on their way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hatch_mar.serve.batching.jobs import Job, Seat


class Braked(Protocol):
    """A worker that can be kept waiting."""

    def pause(self) -> None:
        """Read nothing from it for now."""
        ...

    def resume(self) -> None:
        """Read from it again."""
        ...


class Brakes:
    """Who keeps which worker waiting."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._jobs: dict[Job, Seat] = {}
        self._workers: dict[Seat, Braked] = {}

    def hold(self, job: Job, seat: Seat, worker: Braked) -> None:
        """Keep `worker`, which sits at `seat`, waiting until `job` lets it go."""
        self._jobs[job] = seat
        if seat not in self._workers:
            self._workers[seat] = worker
            seat.braked = True
            worker.pause()

    def release(self, job: Job) -> None:
        """Let the worker of `job` go on, unless others keep it waiting; it may not be waiting."""
        seat = self._jobs.pop(job, None)
        if seat is not None and seat not in self._jobs.values():
            seat.braked = False
            seat.since = time.monotonic()
            self._workers.pop(seat).resume()

    def forget(self, seat: Seat) -> None:
        """Hear that the worker is gone."""
        self._workers.pop(seat, None)
        self._jobs = {job: other for job, other in self._jobs.items() if other is not seat}
