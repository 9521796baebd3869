"""Requests that belong together: `sequenceBatching`.

All requests of a sequence go to one worker, one after the other, so that its handler may keep what
it needs between them. A batch holds one request of each of several sequences. A worker has as many
sequences as its batches have places; others wait until one of these ends.

A sequence ends when it has been idle for `sequenceMaxIdleMSec`, when it is older than
`sequenceTimeoutMSec`, or when the handler names it in the header `ts_request_sequence_end` of an
answer.
"""

from __future__ import annotations

import math
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Self

from hatch_mar.serve.batching.open_batcher import OpenBatcher
from hatch_mar.serve.headers import HeaderBlock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hatch_mar.model.protocol import Request, Response
    from hatch_mar.serve.batching.jobs import Job, Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceHeaders:
    """The names of the headers that tell of sequences."""

    ident: str = "ts_request_sequence_id"
    start: str = "ts_request_sequence_start"
    end: str = "ts_request_sequence_end"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the variables that TorchServe and its handlers know: the workers read them too."""
        names = ("ident", "ID"), ("start", "START"), ("end", "END")
        known = {name: environ.get(f"TS_REQUEST_SEQUENCE_{part}") for name, part in names}
        return cls(**{name: value for name, value in known.items() if value})

    def join(self, request: Request) -> str:
        """Return the sequence of `request`; one that names none gets a new one, and its headers."""
        wanted = self.ident.lower()
        named = [value for name, value in request.headers if name.lower() == wanted]
        if named and named[-1]:
            return named[-1]
        ident = f"ts-seq-{uuid.uuid4()}"
        added = ((self.ident, ident), (self.start, "true"))
        request.headers = HeaderBlock.of((*request.headers, *added))
        return ident

    def ended(self, response: Response) -> list[str]:
        """Return the sequences that a handler calls finished."""
        wanted = self.end.lower()
        values = [value for name, value in response.headers if name.lower() == wanted]
        return [ident.strip() for value in values for ident in value.split(";")]


class Group:
    """One sequence that is open."""

    __slots__ = ("deadline", "finished", "held", "idle_since", "jobs", "seat")

    def __init__(self, now: float, deadline: float) -> None:
        """Open it."""
        self.deadline = deadline
        self.idle_since = now
        self.jobs: deque[Job] = deque()
        """What waits for a worker."""
        self.held = 0
        """How many of its requests the worker has."""
        self.seat: Seat | None = None
        """The worker that has it."""
        self.finished = False


class SequenceBatcher(OpenBatcher):
    """A queue for each sequence, and the seats that they are tied to."""

    def __init__(
        self,
        *,
        batch_size: int,
        max_sequences: int,
        queue_size: int,
        max_idle: float,
        timeout: float = 0,
        max_delay: float = 0,
        client_timeout: float = 0,
        response_timeout: float = 0,
        tickets: bool = False,
        overlapping: bool = False,
    ) -> None:
        """Keep at most `max_sequences`, each with at most `queue_size` requests that wait.

        Times are seconds. With `overlapping` (continuous batching) a worker may hold several
        requests of one sequence, and twice the batch, and answers them in any order.
        """
        super().__init__(
            batch_size=batch_size,
            capacity=max_sequences * queue_size,
            max_delay=max_delay,
            client_timeout=client_timeout,
            response_timeout=response_timeout,
            tickets=tickets,
        )
        self.ordered = not overlapping
        self.room = 2 * batch_size if overlapping else batch_size
        self._max_sequences = max_sequences
        self._queue_size = queue_size
        self._max_idle = max_idle
        self._timeout = timeout
        self._groups: dict[str, Group] = {}

    def offer(self, job: Job) -> bool:
        """Queue `job` behind the others of its sequence; False if there is no place."""
        if self.tickets and self._waiting() >= self._idle():
            self.refused_tickets += 1
            return False
        if not self._enqueue(job):
            self.refused_full += 1
            return False
        self.next_deadline = min(self.next_deadline, job.deadline)
        return True

    def wait(self, now: float) -> float:
        """Return for how long a sequence has waited that no worker has room for."""
        untied = (group.jobs for group in self._groups.values() if group.seat not in self.seats)
        return now - min((jobs[0].arrived for jobs in untied if jobs), default=now)

    @property
    def occupied(self) -> float:
        """How many workers' worth of sequences are open."""
        return min(len(self._groups) / self.batch_size, float(len(self.seats)))

    def can_spare(self, seat: Seat) -> bool:
        """Say whether no sequence is tied to `seat`: what its handler knows of it would be lost."""
        return all(group.seat is not seat for group in self._groups.values())

    @property
    def waiting(self) -> int:
        """How many requests no worker holds."""
        return self._waiting()

    @property
    def pending(self) -> int:
        """How many requests no worker can have begun."""
        return self._waiting()

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for an answer."""
        return bool(self._waiting()) or any(seat.awaited for seat in self._all())

    def leave(self, seat: Seat, started: int | None = None) -> list[Job]:
        """Unseat a worker that is gone, and what its handler knew of its sequences with it.

        The jobs that it had not begun go back to the heads of their queues; see `Batcher.leave`.
        """
        held = list(seat.held)
        begun = len(held) if started is None else min(started - seat.answered, len(held))
        (self.seats if seat in self.seats else self._retired).remove(seat)
        seat.held.clear()
        for job in reversed(held[begun:]):
            group = self._groups.get(job.group)
            if not job.done:
                (self._queue if group is None else group.jobs).appendleft(job)
        for group in self._groups.values():
            if group.seat is seat:
                group.seat, group.held, group.idle_since = None, 0, seat.since
        return held[:begun]

    def assign(self, now: float) -> list[tuple[Seat, list[Job]]]:
        """Tie sequences to workers, and give every worker what it may begin."""
        self._tie()
        orders = []
        for seat in self.seats:
            jobs = [] if self.ordered and seat.held else self._gather(seat, now)
            if jobs:
                if not seat.held:
                    seat.since = now
                seat.held.extend(jobs)
                orders.append((seat, jobs))
        return orders

    def answered(self, seat: Seat, count: int, seconds: float) -> list[Job]:
        """Take back the oldest `count` jobs of `seat`; see `Batcher.answered`."""
        return self._settle(seat, super().answered(seat, count, seconds))

    def answered_some(self, seat: Seat, numbers: Sequence[int], seconds: float) -> list[Job]:
        """Take back the jobs of `seat` with these `numbers`; see `OpenBatcher.answered_some`."""
        return self._settle(seat, super().answered_some(seat, numbers, seconds))

    def finish(self, ident: str) -> list[Job]:
        """End a sequence; return its requests that still wait."""
        group = self._groups.pop(ident, None)
        return [] if group is None else list(group.jobs)

    def lapsed(self, now: float) -> list[Job]:
        """End the sequences whose time is over; return their requests that still wait."""
        over = [ident for ident, group in self._groups.items() if self._end_of(group) <= now]
        return [job for ident in over for job in self.finish(ident)]

    def expired(self, now: float) -> list[Job]:
        """Take out the jobs that nobody has answered for `client_timeout`."""
        jobs = super().expired(now)
        if self.client_timeout:
            for group in self._groups.values():
                while group.jobs and group.jobs[0].arrived + self.client_timeout <= now:
                    jobs.append(group.jobs.popleft())
        return jobs

    def withdraw(self) -> list[Job]:
        """Empty the queues: no worker will come."""
        jobs = [job for group in self._groups.values() for job in group.jobs]
        self._groups.clear()
        return super().withdraw() + jobs

    def wake_at(self) -> float:
        """Return when time alone will change something; infinity for never."""
        times = [super().wake_at(), *map(self._end_of, self._groups.values())]
        for group in self._groups.values():
            if group.jobs:
                arrived = group.jobs[0].arrived
                times += [arrived + self.client_timeout] if self.client_timeout else []
                times += [arrived + self.max_delay] if self.max_delay and self.is_free() else []
        return min(times)

    def _enqueue(self, job: Job) -> bool:
        if not job.group:  # a describe: it belongs to no sequence
            self._queue.append(job)
            return True
        group = self._groups.get(job.group)
        if group is None:
            if len(self._groups) >= self._max_sequences:
                return False
            deadline = job.arrived + self._timeout if self._timeout else math.inf
            group = self._groups[job.group] = Group(job.arrived, deadline)
        if group.finished or len(group.jobs) >= self._queue_size:
            return False
        group.jobs.append(job)
        return True

    def _waiting_jobs(self) -> Iterable[Job]:
        """Yield the jobs that no worker holds."""
        return chain(self._queue, *(group.jobs for group in self._groups.values()))

    def _take_out(self, job: Job) -> None:
        """Let `job` wait no more, if no worker holds it."""
        super()._take_out(job)
        group = self._groups.get(job.group)
        if group is not None:
            with suppress(ValueError):
                group.jobs.remove(job)

    def _waiting(self) -> int:
        return len(self._queue) + sum(len(group.jobs) for group in self._groups.values())

    def _end_of(self, group: Group) -> float:
        idle = not (group.jobs or group.held)
        return min(group.deadline, group.idle_since + self._max_idle if idle else math.inf)

    def _tie(self) -> None:
        """Tie sequences that have no worker to those who have the fewest."""
        tied = dict.fromkeys(self.seats, 0)
        free = []
        for group in self._groups.values():
            if group.seat in tied:
                tied[group.seat] += 1
            elif not group.held and group.jobs:
                free.append(group)
        for group in free:
            seat = min(self.seats, key=tied.__getitem__, default=None)
            if seat is None or tied[seat] >= self.batch_size:
                return
            group.seat = seat
            tied[seat] += 1

    def _gather(self, seat: Seat, now: float) -> list[Job]:
        """Take the next request of each sequence of `seat`, the longest waiting first."""
        if self._queue and not seat.held:
            return [self._queue.popleft()]
        groups = [group for group in self._groups.values() if group.seat is seat and group.jobs]
        groups.sort(key=lambda group: group.jobs[0].number)
        space = self.room - len(seat.held)
        waits = self.max_delay and not seat.held and 0 < len(groups) < self.batch_size
        if waits and now < groups[0].jobs[0].arrived + self.max_delay:
            return []
        jobs = []
        for group in groups[: max(space, 0)]:
            jobs.append(group.jobs.popleft())
            group.held += 1
        return jobs

    def _settle(self, seat: Seat, jobs: list[Job]) -> list[Job]:
        """Note that a worker has answered `jobs`: their sequences go on, or are idle."""
        for job in jobs:
            group = self._groups.get(job.group)
            if group is not None and group.seat is seat:
                group.held -= 1
                group.idle_since = seat.since
        return jobs
