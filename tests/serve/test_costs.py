"""What a batch costs is read off those that were seen, and unknown where they do not tell."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.serve.batching.costs import FEWEST, Cost, fit_cost

DIGITS = Cost(fixed=0.02, per_item=0.001)


def run(cost: Cost, sizes: list[int], noise: float = 0.0) -> list[tuple[int, float]]:
    rng = random.Random(7)
    return [(size, cost.of(size) * (1 + noise * rng.uniform(-1, 1))) for size in sizes]


@given(
    st.floats(1e-5, 1.0),
    st.floats(1e-6, 0.1),
    st.lists(st.integers(1, 64), min_size=40, max_size=60).filter(lambda one: len(set(one)) > 20),
)
def test_a_line_is_found_again(fixed: float, per_item: float, sizes: list[int]) -> None:
    fit = fit_cost(run(Cost(fixed=fixed, per_item=per_item), sizes))
    assert fit.cost is not None
    assert fit.cost.fixed == pytest.approx(fixed, rel=1e-3, abs=1e-4 * per_item)
    assert fit.cost.per_item == pytest.approx(per_item, rel=1e-3, abs=1e-6 * fixed)
    assert (fit.source, fit.batches) == ("measured", len(sizes))


def test_noise_is_averaged() -> None:
    fit = fit_cost(run(DIGITS, [1, 2, 4, 8, 16, 32] * 20, noise=0.1))
    assert fit.cost is not None
    assert fit.cost.fixed == pytest.approx(DIGITS.fixed, rel=0.05)
    assert fit.cost.per_item == pytest.approx(DIGITS.per_item, rel=0.05)
    assert fit.r_squared is not None
    assert 0.9 < fit.r_squared < 1


@pytest.mark.parametrize("odd", [1, 32])
def test_a_first_batch_that_took_seconds_moves_nothing(odd: int) -> None:
    fit = fit_cost([(odd, 5.0), *run(DIGITS, [1, 2, 4, 8, 16] * 10, noise=0.01)])
    assert fit.cost is not None
    assert fit.cost.fixed == pytest.approx(DIGITS.fixed, rel=0.05)
    assert fit.cost.per_item == pytest.approx(DIGITS.per_item, rel=0.1)


def test_a_lone_batch_of_another_size_is_no_slope() -> None:
    fit = fit_cost([(64, 5.0), *run(DIGITS, [1] * 40)])
    assert fit.cost is None
    assert fit.unknown == "the latest batches were all of about one size"
    assert fit.typical == pytest.approx(DIGITS.of(1))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([], "no batch was answered yet"),
        ([1, 2, 3], f"3 batches are too few to tell; it takes {FEWEST}"),
        ([8] * 40, "all of the latest 40 batches were of size 8"),
        ([7, 8] * 40, "the latest batches were all of about one size"),
    ],
)
def test_what_does_not_tell_is_said(sizes: list[int], words: str) -> None:
    fit = fit_cost(run(DIGITS, sizes))
    assert (fit.cost, fit.unknown) == (None, words)


def test_times_that_have_nothing_to_do_with_sizes() -> None:
    rng = random.Random(3)
    fit = fit_cost([(rng.randint(1, 3), rng.expovariate(1)) for _ in range(60)])
    assert fit.cost is None
    assert "more in time than their sizes explain" in fit.unknown


def test_a_cost_of_before_keeps_its_proportions() -> None:
    """Twice as slow as it was measured: both its parts are taken to be."""
    fit = fit_cost([(8, 2 * DIGITS.of(8))] * 40, DIGITS)
    assert fit.source == "remembered"
    assert fit.cost == Cost(fixed=0.04, per_item=0.002)


def test_nothing_costs_less_than_nothing() -> None:
    falling = fit_cost([(size, 0.1 - 0.001 * size) for size in [1, 2, 4, 8, 16] * 8])
    assert falling.cost is not None
    assert falling.cost.per_item == 0
    assert falling.cost.knee() == inf
    early = fit_cost([(size, 0.01 * size - 0.005) for size in [1, 2, 4, 8, 16] * 8])
    assert early.cost is not None
    assert early.cost.fixed == 0


def test_the_knee_is_nine_times_the_ratio() -> None:
    assert DIGITS.knee() == pytest.approx(9 * 20)
    assert DIGITS.efficiency(180) == pytest.approx(0.9)
    assert DIGITS.capacity(180) == pytest.approx(0.9 / DIGITS.per_item)
