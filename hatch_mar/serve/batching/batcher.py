"""Which worker gets which request, and when: no clock, no socket, no process in here.

Time is an argument, in seconds of any monotonic clock. Requests wait in one queue per model
version, first come first served. A worker with nothing to do takes what waits, up to `batch_size`,
at once. A busy one is given more only when nobody is idle, so that it never has to ask and wait
(measured: one request in lockstep per worker costs a factor of 6.6), and only so much that nobody
regrets it.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hatch_mar.model.protocol import Response
    from hatch_mar.serve.frames import Buffer
    from hatch_mar.serve.metrics.store import Tally

AHEAD_SECONDS = 0.003
"""How much predicted work a busy worker may hold: some wake-ups long, too short to matter."""
NUMBER_MASK = 0xFFFFFFFF
"""Of a job's number so much travels to its worker."""
_SMOOTHING = 0.1
"""Weight of the newest batch in the running mean of a request's time."""


class Owner(Protocol):
    """Whoever accepted a job."""

    def cancel(self, job: Job) -> None:
        """Forget the job: its client is gone."""
        ...

    def hold(self, job: Job) -> None:
        """Have the job's worker wait: its client does not keep up."""
        ...

    def release(self, job: Job) -> None:
        """Let the job's worker go on."""
        ...


class Job:
    """An accepted request, and whom to tell its answer."""

    __slots__ = (
        "arrived",
        "done",
        "group",
        "number",
        "on_piece",
        "on_reply",
        "owner",
        "packed",
        "streams",
        "tally",
    )

    def __init__(  # noqa: PLR0917 - made once per request: keywords cost a tenth of accepting it
        self,
        packed: list[Buffer],
        on_reply: Callable[[Response], None],
        owner: Owner,
        tally: Tally,
        number: int,
        arrived: float,
    ) -> None:
        """Accept a request, the `number`th of its owner, at `arrived`."""
        self.packed = packed
        """The request as it will travel."""
        self.on_reply = on_reply
        self.owner = owner
        self.tally = tally
        self.number = number
        self.arrived = arrived
        self.done = False
        """Answered or cancelled: nobody wants to hear of it any more."""
        self.on_piece: Callable[[Response], None] | None = None
        """Whom to tell an intermediate answer; None for somebody who wants all of it at once."""
        self.streams = False
        """Whether there was an intermediate answer already."""
        self.group = ""
        """The sequence that it belongs to, where the model has sequences."""


class Seat:
    """What is known of one worker that can answer."""

    __slots__ = ("answered", "braked", "held", "item_time", "since")

    def __init__(self) -> None:
        """Start idle, its speed unknown."""
        self.held: deque[Job] = deque()
        """Sent and not answered, in the order in which it will answer."""
        self.answered = 0
        """How many requests it has answered."""
        self.item_time = 0.0
        """Seconds per request, a running mean; 0 before the first answer."""
        self.since = 0.0
        """When it last answered, or was last given something to do."""
        self.braked = False
        """Whether it waits for a client that does not keep up: it cannot answer then."""

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for what it holds."""
        return not all(job.done for job in self.held)


class Batcher:
    """One queue, and the seats that empty it."""

    ordered = True
    """Whether workers answer in the order in which they were given requests."""

    def __init__(
        self,
        *,
        batch_size: int,
        capacity: int,
        max_delay: float = 0,
        client_timeout: float = 0,
        response_timeout: float = 0,
        tickets: bool = False,
    ) -> None:
        """Hold at most `capacity` requests that no worker has begun.

        `max_delay` is how long an incomplete batch waits for company, `client_timeout` how long a
        request may wait for the first of its answer, `response_timeout` how long a worker may be
        silent over its work: each in seconds, and 0 for never. With `tickets` a request is taken
        only if an idle worker is there for it (TorchServe's `useJobTicket`).
        """
        self.batch_size = batch_size
        self.room = batch_size
        """How many requests a worker may have begun at once."""
        self.capacity = capacity
        self.max_delay = max_delay
        self.client_timeout = client_timeout
        self.response_timeout = response_timeout
        self.tickets = tickets
        self.seats: list[Seat] = []
        """Who is given requests."""
        self._retired: list[Seat] = []
        self._queue: deque[Job] = deque()
        self._ahead = 0

    @property
    def waiting(self) -> int:
        """How many requests no worker holds."""
        return len(self._queue)

    @property
    def pending(self) -> int:
        """How many requests no worker can have begun: what `capacity` bounds."""
        return len(self._queue) + self._ahead

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for an answer."""
        return bool(self._queue) or any(seat.awaited for seat in self._all())

    def offer(self, job: Job) -> bool:
        """Queue `job`; False if the queue is full."""
        queue = self._queue
        if len(queue) + self._ahead >= self.capacity:
            return False
        if self.tickets and len(queue) >= self.batch_size * self._idle():
            return False
        queue.append(job)
        return True

    def cancel(self, job: Job) -> None:
        """Take `job` out of the queue; if a worker holds it, its answer will be dropped."""
        job.done = True
        with suppress(ValueError):
            self._queue.remove(job)

    def join(self, now: float) -> Seat:
        """Seat a worker that has just become ready."""
        seat = Seat()
        seat.since = now
        self.seats.append(seat)
        return seat

    def retire(self, seat: Seat) -> None:
        """Give `seat` nothing more; it still answers what it holds."""
        self.seats.remove(seat)
        self._retired.append(seat)

    def leave(self, seat: Seat, started: int | None = None) -> list[Job]:
        """Unseat a worker that is gone; return the jobs it had begun, oldest first.

        `started` counts the requests it had begun since it joined, None standing for all it was
        given. The others go back to the head of the queue, where they came from.
        """
        held = list(seat.held)
        begun = len(held) if started is None else min(started - seat.answered, len(held))
        (self.seats if seat in self.seats else self._retired).remove(seat)
        self._ahead -= max(0, len(held) - self.room)
        seat.held.clear()
        back = [job for job in held[begun:] if not job.done]
        if back:
            # Two workers may die with each other's neighbours in hand: order by arrival, always.
            self._queue = deque(sorted([*back, *self._queue], key=lambda job: job.number))
        return held[:begun]

    def assign(self, now: float) -> list[tuple[Seat, list[Job]]]:
        """Decide what to send to whom; the caller sends it, in this order."""
        orders: list[tuple[Seat, list[Job]]] = []
        if not self._queue:
            return orders
        idle = False
        for seat in self.seats:
            if not seat.held:
                count = self._releasable(now, self.batch_size)
                if not count:
                    idle = True
                    break
                seat.since = now
                orders.append((seat, self._give(seat, count)))
        if self._queue and not idle:
            self._look_ahead(now, orders)
        # Whoever was served first is served last next time: equal workers get equal work.
        if len(self.seats) > 1 and orders:
            self.seats.append(self.seats.pop(0))
        return orders

    def answered(self, seat: Seat, count: int, seconds: float) -> list[Job]:
        """Take back the oldest `count` jobs of `seat`, which answered them in `seconds`.

        Raises:
            IndexError: it does not hold so many.
        """
        held = seat.held
        excess = len(held) - self.room
        if excess > 0:
            self._ahead -= min(excess, count)
        jobs = [held.popleft() for _ in range(count)]
        self._count(seat, count, seconds)
        return jobs

    def seat_of(self, job: Job) -> Seat | None:
        """Return the worker that holds `job`, if one does."""
        return next((seat for seat in self._all() if job in seat.held), None)

    def expired(self, now: float) -> list[Job]:
        """Take out the jobs that have waited longer than `client_timeout`."""
        jobs = []
        if self.client_timeout:
            while self._queue and self._queue[0].arrived + self.client_timeout <= now:
                jobs.append(self._queue.popleft())
        return jobs

    def overdue(self, now: float) -> list[Job]:
        """Return the jobs that have waited so long, and that a worker holds still."""
        if not self.client_timeout:
            return []
        return [job for job in self._unanswered() if job.arrived + self.client_timeout <= now]

    def lapsed(self, now: float) -> list[Job]:  # noqa: ARG002 - see SequenceBatcher
        """Take out the jobs whose sequence is over by now: there are none here."""
        return []

    def withdraw(self) -> list[Job]:
        """Empty the queue: no worker will come."""
        jobs = list(self._queue)
        self._queue.clear()
        return jobs

    def stuck(self, now: float) -> list[Seat]:
        """Return the workers that have been silent over their work for `response_timeout`."""
        if not self.response_timeout:
            return []
        limit = now - self.response_timeout
        return [
            seat for seat in self._all() if seat.held and seat.since <= limit and not seat.braked
        ]

    def wake_at(self) -> float:
        """Return when time alone will change something; infinity for never."""
        times = [float("inf")]
        if self.response_timeout:
            busy = [seat for seat in self._all() if seat.held and not seat.braked]
            times += [seat.since + self.response_timeout for seat in busy]
        if self._queue:
            oldest = self._queue[0].arrived
            if self.client_timeout:
                times.append(oldest + self.client_timeout)
            if self.max_delay and self.is_free():
                times.append(oldest + self.max_delay)
        if self.client_timeout:
            times += [job.arrived + self.client_timeout for job in self._unanswered()]
        return min(times)

    def is_free(self) -> bool:
        """Whether some worker has nothing to do."""
        for seat in self.seats:  # noqa: SIM110 - asked once per request: a generator costs more
            if not seat.held:
                return True
        return False

    def _count(self, seat: Seat, count: int, seconds: float) -> None:
        """Remember that `seat` answered `count` jobs, and how long one takes."""
        item = seconds / count if count else 0.0
        seat.answered += count
        known = seat.item_time
        seat.item_time = known + _SMOOTHING * (item - known) if known else item

    def _unanswered(self) -> list[Job]:
        """Return the jobs that workers hold and whose clients have nothing yet."""
        return [job for seat in self._all() for job in seat.held if not (job.done or job.streams)]

    def _all(self) -> list[Seat]:
        return self.seats + self._retired if self._retired else self.seats

    def _idle(self) -> int:
        """Count the workers that have nothing to do."""
        return sum(not seat.held for seat in self.seats)

    def _releasable(self, now: float, limit: int) -> int:
        """Count the jobs at the head of the queue that may leave together, at most `limit`."""
        count = min(len(self._queue), limit)
        if (
            self.max_delay
            and count < self.batch_size
            and count
            and now < self._queue[0].arrived + self.max_delay
        ):
            return 0
        return count

    def _give(self, seat: Seat, count: int) -> list[Job]:
        queue = self._queue
        jobs = [queue.popleft() for _ in range(count)] if count < len(queue) else self.withdraw()
        before = max(0, len(seat.held) - self.room)
        seat.held.extend(jobs)
        self._ahead += max(0, len(seat.held) - self.room) - before
        return jobs

    def _look_ahead(self, now: float, orders: list[tuple[Seat, list[Job]]]) -> None:
        """Give busy workers their next requests, in equal shares."""
        rooms = [(self._room(seat), seat) for seat in self.seats]
        for position, (room, seat) in enumerate(rooms):
            share = -(-len(self._queue) // (len(rooms) - position))
            if self.batch_size > 1:
                share = -(-share // self.batch_size) * self.batch_size
            count = self._releasable(now, min(room, share)) if room > 0 else 0
            if count:
                jobs = self._give(seat, count)
                _add(orders, seat, jobs)
            if not self._queue:
                break

    def _room(self, seat: Seat) -> int:
        """How many requests more `seat` may hold although it is busy."""
        limit = int(AHEAD_SECONDS / seat.item_time) if seat.item_time else 0
        if len(self.seats) == 1:
            limit = max(limit, 2 * self.batch_size)
        return limit - len(seat.held)


def _add(orders: list[tuple[Seat, list[Job]]], seat: Seat, jobs: Sequence[Job]) -> None:
    """Let one worker's orders be one order: it is one write."""
    for ordered, order in orders:
        if ordered is seat:
            order.extend(jobs)
            return
    orders.append((seat, list(jobs)))
