"""Hires and dismisses the workers of one model, as its policy wishes and the machine allows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from hatch_mar.errors import ModelError
from hatch_mar.serve.scaling.policy import Pace, Policy, Sight, Wish
from hatch_mar.serve.scaling.room import (
    Glance,
    find_crowding,
    find_full_device,
    find_want_of_memory,
    glance,
    read_available,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hatch_mar.archive.modelconfig import ModelConfig
    from hatch_mar.serve.batching.batcher import Batcher
    from hatch_mar.serve.slot import Slot
    from hatch_mar.serve.workforce import Workforce

logger = logging.getLogger("hatch_mar.serve")

Outcome = Literal["up", "down", "no-room", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("up", "down", "no-room", "failed")
_LOOKS = 8
"""How often at least we look during the shortest of the times that the policy waits."""
_LONGEST_INTERVAL, _SHORTEST_INTERVAL = 0.25, 0.01
_REMEMBERED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided, and why."""

    time: str
    """ISO 8601, with the zone."""
    outcome: Outcome
    workers: int
    """How many there are from then on."""
    reason: str


class Autoscaler:
    """Looks at a model every now and then, as long as its number of workers may change."""

    def __init__(
        self,
        model: str,
        config: ModelConfig,
        *,
        workforce: Workforce,
        batcher: Batcher,
        count: Callable[[], int],
    ) -> None:
        """Do nothing yet: see `follow`. `count` says how many requests there were."""
        self.refused = 0
        """How many there was no room for; whoever refuses them counts them here."""
        self.decisions: deque[Decision] = deque(maxlen=_REMEMBERED)
        self.counts: Counter[Outcome] = Counter()
        self._model = model
        self._workforce = workforce
        self._batcher = batcher
        self._count = count
        self._from_zero = config.scale_from_zero
        self._load_seconds = 0.0
        self._loop = asyncio.get_running_loop()
        pace = Pace.of(config)
        self._policy = Policy(pace)
        shortest = min(pace.up_after, pace.down_after) / _LOOKS
        self._interval = min(max(shortest, _SHORTEST_INTERVAL), _LONGEST_INTERVAL)
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._before: Glance | None = None
        """The processors when need began."""
        self._complaint = ""
        """What was said last of why there is no worker more."""

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change by itself."""
        workforce = self._workforce
        return workforce.max_workers > workforce.min_workers

    def follow(self) -> None:
        """Begin to look, if the bounds leave a choice."""
        if self._timer is None and self.elastic and not self._stopped:
            self._timer = self._loop.call_later(self._interval, self._tick)

    def stop(self) -> None:
        """Look no more, for good."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def rouse(self) -> bool:
        """Start a worker for a request, if there is none and the author wants that.

        Returns whether the request may wait for one.
        """
        workforce, now = self._workforce, time.monotonic()
        if not self._from_zero or self._stopped or not self.elastic:
            return False
        # One that died by itself a moment ago has not been heard of yet.
        empty = all(slot.asked_to_leave for slot in workforce.slots)
        if not empty or not self._policy.may_grow(now):
            return False
        self._grow(now, "somebody asks, and there was no worker")
        return not workforce.hopeless

    def describe(self) -> dict[str, Any]:
        """Return what `describe` shows of it."""
        return {
            "counts": {outcome: self.counts[outcome] for outcome in OUTCOMES},
            "decisions": [asdict(decision) for decision in self.decisions],
        }

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic()
        try:
            wish = None if self._workforce.scaling else self._policy.look(now, self._see(now))
            self._mark_time()
            if wish is not None:
                self._fulfil(now, wish)
        finally:
            self.follow()

    def _see(self, now: float) -> Sight:
        workforce, batcher = self._workforce, self._batcher
        serving = workforce.serving
        self._load_seconds = max((slot.load_seconds for slot in serving), default=0.0)
        times = [seat.item_time for seat in batcher.seats if seat.item_time]
        item = sum(times) / len(times) if times else 0.0
        # The last worker goes only where a request would bring it back.
        least = workforce.min_workers or (0 if self._from_zero else 1)
        return Sight(
            workers=len(serving),
            coming=len(workforce.staying) - len(serving),
            minimum=least,
            maximum=workforce.max_workers,
            wait=batcher.wait(now),
            occupied=batcher.occupied,
            accepted=self._count(),
            refused=self.refused,
            backlog=batcher.pending * item / max(len(serving), 1),
            load_seconds=self._load_seconds,
        )

    def _mark_time(self) -> None:
        """Begin to watch the processors when somebody waits too long: later it costs nothing."""
        if not self._policy.needs or self._workforce.uses_gpu:
            self._before = None
        elif self._before is None:
            self._before = self._glance()

    def _glance(self) -> Glance:
        return glance({slot.number: slot.core_seconds() for slot in self._workforce.serving})

    def _fulfil(self, now: float, wish: Wish) -> None:
        if wish.step < 0:
            self._shrink(now, wish.reason)
            return
        complaint = self._find_complaint()
        if complaint:
            self._deny(now, wish, complaint)
        else:
            self._grow(now, wish.reason)

    def _find_complaint(self) -> str:
        """Say why there is no room for one more worker; nothing if there is."""
        serving = self._workforce.serving
        memory = read_available()
        needed = max((slot.own_memory() for slot in serving), default=0)
        complaint = "" if memory is None else find_want_of_memory(needed, memory)
        if not complaint and self._before is not None:
            complaint = find_crowding(self._before, self._glance())
        if not complaint and (device := self._workforce.next_device()) is not None:
            complaint = find_full_device(device, [one for slot in serving for one in slot.devices])
        return complaint

    def _deny(self, now: float, wish: Wish, complaint: str) -> None:
        self._policy.note_refusal(now)
        self._before = None
        self.counts["no-room"] += 1
        kind = complaint.rpartition(": ")[2].translate(_NO_DIGITS)
        if kind != self._complaint:
            self._complaint = kind
            self._decide("no-room", f"{wish.reason}, but {complaint}")

    def _grow(self, now: float, reason: str) -> None:
        try:
            slot = self._workforce.hire()
        except ModelError as error:
            self._deny(now, Wish(1, reason), str(error))
            return
        self._policy.note_more(now)
        self._before = None
        self.counts["up"] += 1
        self._decide("up", reason)
        slot.loaded.add_done_callback(lambda loaded: self._on_loaded(slot, loaded))

    def _on_loaded(self, slot: Slot, loaded: asyncio.Future[None]) -> None:
        error = loaded.exception()
        if error is None:
            self._complaint = ""
            self._policy.note_loaded()
        elif not slot.asked_to_leave:
            pause = self._policy.note_failure(time.monotonic())
            self.counts["failed"] += 1
            reason = f"{error}; the next try is in {pause:.0f} s"
            if self._complaint != str(error):
                self._complaint = str(error)
                self._decide("failed", reason, level=logging.ERROR)

    def _shrink(self, now: float, reason: str) -> None:
        # Whoever has least to finish, and of those the one that came last.
        spare = {
            (len(slot.seat.held), -slot.number): slot
            for slot in self._workforce.serving
            if slot.seat is not None and self._batcher.can_spare(slot.seat)
        }
        if not spare:
            return
        self._policy.note_less(now)
        self._complaint = ""
        self._workforce.dismiss(spare[min(spare)])
        self.counts["down"] += 1
        self._decide("down", reason)

    def _decide(self, outcome: Outcome, reason: str, *, level: int = logging.INFO) -> None:
        workers = len(self._workforce.staying)
        at = datetime.now().astimezone().isoformat(timespec="milliseconds")
        decision = Decision(time=at, outcome=outcome, workers=workers, reason=reason)
        self.decisions.append(decision)
        level = max(level, logging.WARNING) if outcome == "no-room" else level
        logger.log(level, "%s: %s, %d in all: %s", self._model, _SAID[outcome], workers, reason)


_NO_DIGITS = {ord(digit): None for digit in "0123456789.- "}
_SAID: Mapping[Outcome, str] = {
    "up": "one worker more",
    "down": "one worker less",
    "no-room": "no room for one worker more",
    "failed": "one worker more could not be had",
}
