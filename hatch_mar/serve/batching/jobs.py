"""Accepted requests, and the workers that hold some of them."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatch_mar.model.protocol import Response
    from hatch_mar.serve.frames import Buffer
    from hatch_mar.serve.metrics.store import Tally

NUMBER_MASK = 0xFFFFFFFF
"""Of a job's number so much travels to its worker."""


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
        "deadline",
        "done",
        "expected",
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
        self.deadline = inf
        """When its client does not want the answer any more."""
        self.expected = 0.0
        """The seconds that its answer was predicted to take; 0 where nobody asked."""
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

    __slots__ = ("answered", "batches", "braked", "cap", "ended", "held", "item_time", "since")

    def __init__(self, *, batches: int = 1) -> None:
        """Start idle, its speed unknown; it may have begun so many `batches` at once."""
        self.batches = batches
        self.held: deque[Job] = deque()
        """Sent and not answered, in the order in which it will answer."""
        self.answered = 0
        """How many requests it has answered."""
        self.item_time = 0.0
        """Seconds per request, a running mean; 0 before the first answer."""
        self.since = 0.0
        """When it last answered, or was last given something to do."""
        self.ended = 0.0
        """When it was through with the last batch that it has answered."""
        self.braked = False
        """Whether it waits for a client that does not keep up: it cannot answer then."""
        self.cap = 0
        """The most requests that fit into a batch of its own; 0: it has said nothing."""

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for what it holds."""
        return not all(job.done for job in self.held)
