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
from math import inf
from typing import TYPE_CHECKING

from hatch_mar.serve.batching.jobs import Seat

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hatch_mar.serve.batching.forecast import Forecast
    from hatch_mar.serve.batching.jobs import Job

AHEAD_SECONDS = 0.003
"""How much predicted work a busy worker may hold: some wake-ups long, too short to matter."""
TRUST = 0.9
"""Of the time that a request may wait, or its client has left, a prediction may take so much: half
of all are too short, and what is answered just too late was computed in vain."""
_SMOOTHING = 0.1
"""Weight of the newest batch in the running mean of a request's time."""


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
        max_wait: float = 0,
        forecast: Forecast | None = None,
    ) -> None:
        """Hold at most `capacity` requests that no worker has begun.

        `max_delay` is how long an incomplete batch waits for company, `client_timeout` how long a
        request may wait for the first of its answer, `response_timeout` how long a worker may be
        silent over its work: each in seconds, and 0 for never. With `tickets` a request is taken
        only if an idle worker is there for it (TorchServe's `useJobTicket`).

        By `forecast` a request is refused that would wait longer than `max_wait` seconds (0: any
        time) before it is begun, or whose client would have given up by the time of its answer.
        """
        self.batch_size = batch_size
        self.room = batch_size
        """How many requests a worker may have begun at once."""
        self.capacity = capacity
        self.max_delay = max_delay
        self.client_timeout = client_timeout
        self.response_timeout = response_timeout
        self.tickets = tickets
        self.max_wait = max_wait
        self.next_deadline = inf
        """No deadline of a request that nobody has answered is before this."""
        self.refused_full = self.refused_tickets = self.refused_wait = 0
        """Requests refused for a full queue; for want of an idle worker; because of `forecast`."""
        self._forecast = forecast
        self._patient = not (max_wait or client_timeout)
        """Whether clients wait for ever, unless they say otherwise."""
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
        """Queue `job`; False if the queue is full, or its client will not wait so long."""
        queue = self._queue
        if len(queue) + self._ahead >= self.capacity:
            self.refused_full += 1
            return False
        if self.tickets and len(queue) >= self.batch_size * self._idle():
            self.refused_tickets += 1
            return False
        if not (self._patient and job.deadline == inf) and not self._admits(job):
            self.refused_wait += 1
            return False
        queue.append(job)
        return True

    def wait(self, now: float) -> float:
        """Return for how many seconds a request has waited that one more worker would begin."""
        if self.is_free():  # it waits for company
            return 0.0
        first = self._queue[0].arrived if self._queue else now
        if self._ahead:
            ahead = (seat.held[self.room] for seat in self.seats if len(seat.held) > self.room)
            first = min((job.arrived for job in ahead), default=first)
        return now - first

    @property
    def occupied(self) -> float:
        """How many workers' worth of work the workers are at."""
        return sum(bool(seat.held) for seat in self.seats)

    def can_spare(self, seat: Seat) -> bool:  # noqa: ARG002 - see SequenceBatcher
        """Say whether nothing is lost if the worker of `seat` answers what it holds, and leaves."""
        return True

    def cancel(self, job: Job) -> None:
        """Take `job` out of the queue; if a worker holds it, its answer will be dropped."""
        job.done = True
        self._take_out(job)

    def join(self, now: float, *, batches: int = 1) -> Seat:
        """Seat a worker that has just become ready, and may have begun so many batches at once."""
        seat = Seat(batches=batches)
        seat.since = now
        self.seats.append(seat)
        return seat

    def retire(self, seat: Seat) -> None:
        """Give `seat` nothing more; it still answers what it holds."""
        if seat in self.seats:
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
        self._ahead -= self._excess(seat)
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
                most = seat.cap or self.batch_size
                count = self._releasable(now, most, most)
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
        excess = len(held) - self.room * seat.batches
        if excess > 0:
            self._ahead -= min(excess, count)
        jobs = [held.popleft()] if count == 1 else [held.popleft() for _ in range(count)]
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

    def late(self, now: float) -> list[Job]:
        """Take out the jobs whose deadline is over; those that a worker holds it goes on with."""
        if now < self.next_deadline:
            return []
        waiting = [*self._waiting_jobs(), *self._unanswered()]
        late = [job for job in waiting if job.deadline <= now]
        for job in late:
            self._take_out(job)
        self.next_deadline = min(
            (job.deadline for job in waiting if job.deadline > now), default=inf
        )
        return late

    @property
    def cap(self) -> int:
        """How many requests fit into any worker's memory at once, if not a whole batch; else 0."""
        caps = [seat.cap for seat in self.seats if 0 < seat.cap < self.batch_size]
        return min(caps, default=0)

    @property
    def predictable(self) -> bool:
        """Whether workers answer batch after batch, so that waiting can be predicted."""
        return self._forecast is not None

    def predict_wait(self, now: float) -> float:
        """Return the seconds until a request that comes now would be begun; 0 if nobody knows."""
        if self._forecast is None:
            return 0.0
        size = self.cap or self.batch_size
        return self._forecast.wait(now, self.seats, self.pending, size)

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
        times = [self.next_deadline]
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

    def _admits(self, job: Job) -> bool:
        """Tell whether `job` will be begun, and answered, before it is too late.

        Somebody idle takes it whatever is predicted: so a prediction that is wrong is found out.
        """
        now, deadline = job.arrived, job.deadline
        if self.client_timeout:
            deadline = min(deadline, now + self.client_timeout)
        forecast = self._forecast
        if forecast is not None:
            wait, drift = self.predict_wait(now), forecast.drift
            size = min(self.pending + 1, self.batch_size)
            job.expected = wait + forecast.fit(now).seconds(size)
            if wait and 0 < TRUST * self.max_wait < wait * drift:
                return False
            if wait and job.expected * drift > TRUST * (deadline - now):
                return False
        self.next_deadline = min(self.next_deadline, job.deadline)
        return True

    def _waiting_jobs(self) -> Iterable[Job]:
        """Yield the jobs that no worker holds."""
        return self._queue

    def _take_out(self, job: Job) -> None:
        """Let `job` wait no more, if no worker holds it."""
        with suppress(ValueError):
            self._queue.remove(job)

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

    def _releasable(self, now: float, limit: int, full: int) -> int:
        """Count the jobs at the head of the queue that may leave together, at most `limit`.

        Fewer than `full` wait for company, if the author wants that.
        """
        count = min(len(self._queue), limit)
        if (
            self.max_delay
            and count < full
            and count
            and now < self._queue[0].arrived + self.max_delay
        ):
            return 0
        return count

    def _give(self, seat: Seat, count: int) -> list[Job]:
        queue = self._queue
        jobs = [queue.popleft() for _ in range(count)] if count < len(queue) else self.withdraw()
        before = self._excess(seat)
        seat.held.extend(jobs)
        self._ahead += self._excess(seat) - before
        return jobs

    def _excess(self, seat: Seat) -> int:
        """Return how many of the requests that `seat` holds it cannot have begun."""
        return max(0, len(seat.held) - self.room * seat.batches)

    def _look_ahead(self, now: float, orders: list[tuple[Seat, list[Job]]]) -> None:
        """Give busy workers their next requests, in equal shares."""
        rooms = [(self._room(seat), seat) for seat in self.seats]
        for position, (room, seat) in enumerate(rooms):
            share = -(-len(self._queue) // (len(rooms) - position))
            most = seat.cap or self.batch_size
            if most > 1:
                share = -(-share // most) * most
            count = self._releasable(now, min(room, share), most) if room > 0 else 0
            if count:
                jobs = self._give(seat, count)
                _add(orders, seat, jobs)
            if not self._queue:
                break

    def _room(self, seat: Seat) -> int:
        """How many requests more `seat` may hold although it is busy."""
        limit = int(AHEAD_SECONDS / seat.item_time) if seat.item_time else 0
        if len(self.seats) == 1 or seat.batches > 1:
            limit = max(limit, (seat.batches + 1) * (seat.cap or self.batch_size))
        return limit - len(seat.held)


def _add(orders: list[tuple[Seat, list[Job]]], seat: Seat, jobs: Sequence[Job]) -> None:
    """Let one worker's orders be one order: it is one write."""
    for ordered, order in orders:
        if ordered is seat:
            order.extend(jobs)
            return
    orders.append((seat, list(jobs)))
