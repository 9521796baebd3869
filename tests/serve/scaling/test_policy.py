"""When workers become more, and when fewer: injected time, nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.archive.modelconfig import read_model_config
from hatch_mar.serve.scaling.policy import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    RETRY_SECONDS,
    Pace,
    Policy,
    Sight,
    Wish,
)

PACE = Pace(wait=0.1, up_after=2, down_after=60)
STEP = 0.25


@dataclass
class Model:
    """A model whose load is told, not made: work comes in workers' worth."""

    minimum: int = 1
    maximum: int = 4
    pace: Pace = PACE
    load_seconds: float = 0.5
    workers: int = 1
    now: float = 1000.0
    accepted: int = 0
    refused: int = 0
    loading_until: float = 0.0
    backlog: float = 0.0
    changes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy = Policy(self.pace)

    def look(self, load: float, *, wait: float | None = None) -> Wish | None:
        """Have the policy look once; requests wait where there is more load than workers."""
        self.now += STEP
        coming = int(self.now < self.loading_until)
        if self.loading_until and not coming:
            self.loading_until = 0.0
            self.workers += 1
            self.policy.note_loaded()
        overloaded = load > self.workers
        self.accepted += load > 0
        sight = Sight(
            workers=self.workers,
            coming=coming,
            minimum=self.minimum,
            maximum=self.maximum,
            wait=(1.0 if overloaded else 0.0) if wait is None else wait,
            occupied=min(load, self.workers),
            accepted=self.accepted,
            refused=self.refused,
            backlog=self.backlog,
            load_seconds=self.load_seconds,
        )
        return self.policy.look(self.now, sight)

    def run(self, load: float, seconds: float, *, wait: float | None = None) -> list[Wish]:
        """Do what the policy wishes for so long; return its wishes."""
        wishes = []
        end = self.now + seconds
        while self.now < end:
            wish = self.look(load, wait=wait)
            if wish is None:
                continue
            wishes.append(wish)
            self.changes.append(wish.step)
            if wish.step > 0:
                self.loading_until = self.now + self.load_seconds
                self.policy.note_more(self.now)
            else:
                self.workers -= 1
                self.policy.note_less(self.now)
        return wishes


def test_the_keys_of_the_author() -> None:
    keys = {"scaleUpWaitMSec": 50, "scaleUpAfterMSec": 100, "scaleDownAfterMSec": 3000}
    assert Pace.of(read_model_config(keys)) == (0.05, 0.1, 3)
    assert Pace.of(read_model_config({})) == PACE


class TestMore:
    def test_sustained_need_makes_one_more(self) -> None:
        model = Model()
        (wish,) = model.run(1.5, 4)
        assert wish.step == 1
        assert wish.reason.startswith("requests have waited ")

    def test_a_short_burst_does_not(self) -> None:
        model = Model()
        assert model.run(3, 1) == []
        assert model.run(0.5, 20) == []

    def test_nor_does_one_that_is_shorter_than_loading(self) -> None:
        model = Model(load_seconds=30)
        assert model.run(3, 20) == []
        assert model.run(0.5, 20) == []

    def test_unless_what_waits_already_takes_longer(self) -> None:
        model = Model(load_seconds=30, backlog=40)
        assert len(model.run(3, 20)) == 1

    def test_refused_requests_are_need(self) -> None:
        model = Model()
        wishes = []
        for _ in range(16):
            model.refused += 1
            wishes.append(model.look(1, wait=0))
        reasons = [wish.reason for wish in wishes if wish]
        assert reasons[0].startswith("requests were refused for ")

    def test_none_is_wanted_while_one_loads(self) -> None:
        model = Model(load_seconds=5)
        assert len(model.run(10, 9)) == 1

    def test_none_beyond_the_bound(self) -> None:
        model = Model(maximum=2)
        model.run(10, 600)
        assert model.workers == 2

    def test_where_there_is_no_room_it_asks_again_later(self) -> None:
        model = Model()
        asked = []
        for _ in range(200):
            if model.look(10):
                asked.append(model.now)
                model.policy.note_refusal(model.now)
        assert len(asked) > 1
        assert all(b - a >= RETRY_SECONDS for a, b in pairwise(asked))

    def test_workers_that_do_not_load_are_tried_more_and_more_seldom(self) -> None:
        model = Model()
        pauses = [model.policy.note_failure(model.now) for _ in range(8)]
        assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
        assert pauses[-1] == LONGEST_PAUSE
        assert not model.policy.may_grow(model.now + LONGEST_PAUSE - 1)
        assert model.policy.may_grow(model.now + LONGEST_PAUSE)
        model.policy.note_loaded()
        assert model.policy.note_failure(model.now) == FIRST_PAUSE


class TestLess:
    def test_silence_makes_them_as_few_as_may_be(self) -> None:
        model = Model(workers=4)
        wishes = model.run(0, 400)
        assert model.workers == 1
        assert {wish.reason for wish in wishes} == {"nobody was busy for 60.0 s"}

    def test_not_before_its_time(self) -> None:
        model = Model(workers=4)
        assert model.run(0, 59) == []

    def test_others_must_have_done_the_work_with_something_to_spare(self) -> None:
        assert Model(workers=3).run(1.5, 600) == []
        assert len(Model(workers=3).run(1.3, 61)) == 1

    def test_a_busy_past_is_forgotten(self) -> None:
        model = Model(workers=2)
        model.run(1.9, 3600)
        assert len(model.run(0, 121)) == 1

    def test_the_last_one_goes_only_when_nobody_asked_at_all(self) -> None:
        model = Model(minimum=0)
        assert model.run(0.001, 600) == []
        assert len(model.run(0, 121)) == 1

    def test_one_spared_too_soon_makes_it_careful(self) -> None:
        model = Model(workers=2)
        model.run(0, 61)
        model.run(1.5, 10)
        assert model.changes == [-1, 1]
        assert model.run(0, 105) == []
        assert len(model.run(0, 140)) == 1

    def test_a_worker_that_gave_up_is_not_made_up_for(self) -> None:
        assert Model(workers=0).run(3, 600) == []


loads = st.floats(0, 12)
models = st.builds(
    Model,
    minimum=st.integers(1, 3),
    maximum=st.integers(3, 6),
    workers=st.just(3),
    load_seconds=st.floats(0, 40),
    pace=st.builds(
        Pace, wait=st.floats(0.001, 0.9), up_after=st.floats(0.5, 20), down_after=st.floats(1, 120)
    ),
)


@given(models, st.lists(st.tuples(loads, st.floats(0.25, 100)), max_size=8))
def test_they_stay_within_the_bounds(model: Model, past: list[tuple[float, float]]) -> None:
    for load, seconds in past:
        for _ in model.run(load, seconds):
            pass
        assert model.minimum <= model.workers + bool(model.loading_until) <= model.maximum


@given(models, loads)
def test_constant_load_does_not_make_them_come_and_go(model: Model, load: float) -> None:
    model.run(load, 2000)
    turns = Counter(pairwise(model.changes))
    assert turns[-1, 1] == 0 or turns[1, -1] == 0
    assert turns[-1, 1] + turns[1, -1] <= 1


@given(models, st.lists(st.tuples(loads, st.floats(0.25, 60)), max_size=4))
def test_overload_that_lasts_makes_them_as_many_as_may_be(
    model: Model, past: list[tuple[float, float]]
) -> None:
    for load, seconds in past:
        model.run(load, seconds)
    model.run(100, 2000)
    assert model.workers == model.maximum


@pytest.mark.parametrize("load", [0.2, 0.9, 1.4, 1.9, 2.5, 3.5])
def test_waves_do_not_either(load: float) -> None:
    """Load that comes and goes within a minute moves workers a few times, then no more."""
    model = Model()
    for _ in range(60):
        model.run(load, 20)
        model.run(0.1, 50)
    assert len(model.changes) <= 12
