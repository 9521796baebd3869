"""Requests for workers that begin each as it comes, and answer in any order.

That is what `continuousBatching` and `asyncCommunication` ask for: a worker is never busy, it only
has room for some more, or none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hatch_mar.serve.batching.batcher import Batcher
from hatch_mar.serve.batching.jobs import NUMBER_MASK, Job, Seat

if TYPE_CHECKING:
    from collections.abc import Sequence


class OpenBatcher(Batcher):
    """One queue, and seats that take requests while they answer others."""

    ordered = False

    def __init__(self, *, room: int = 0, **limits: Any) -> None:  # noqa: ANN401 - as in Batcher
        """Let a worker hold `room` requests, by default a batch; see `Batcher`."""
        super().__init__(**limits)
        self.room = room or self.batch_size

    def assign(self, now: float) -> list[tuple[Seat, list[Job]]]:
        """Give what waits to those who hold least, in batches that the author's delay allows."""
        orders: dict[Seat, list[Job]] = {}
        while self._queue:
            seat = min(self.seats, key=lambda one: len(one.held), default=None)
            space = 0 if seat is None else self.room - len(seat.held)
            most = self.batch_size if seat is None else seat.cap or self.batch_size
            count = self._releasable(now, min(space, most), most) if space > 0 else 0
            if seat is None or not count:
                break
            if not seat.held:
                seat.since = now
            orders.setdefault(seat, []).extend(self._give(seat, count))
        return list(orders.items())

    def answered_some(self, seat: Seat, numbers: Sequence[int], seconds: float) -> list[Job]:
        """Take back the jobs of `seat` with these `numbers`, which it answered in `seconds`.

        Raises:
            KeyError: it does not hold one of them.
        """
        held = {job.number & NUMBER_MASK: job for job in seat.held}
        jobs = [held[number] for number in numbers]
        for job in jobs:
            seat.held.remove(job)
        self._count(seat, len(jobs), seconds)
        return jobs

    @property
    def occupied(self) -> float:
        """How many workers' worth of room is taken."""
        return sum(min(len(seat.held) / self.room, 1.0) for seat in self.seats)

    def is_free(self) -> bool:
        """Whether some worker has room."""
        return any(len(seat.held) < self.room for seat in self.seats)

    def _idle(self) -> int:
        """Count the workers that have room."""
        return sum(len(seat.held) < self.room for seat in self.seats)
