from __future__ import annotations

from typing import Any

import pytest

from benchmarks.ceiling import is_close
from benchmarks.processes import Process
from benchmarks.report.points import LOOP, Points
from benchmarks.report.serving import tabulate_echo, tabulate_net
from benchmarks.rounds import sum_by_name
from tests.support.benchmark_points import MACHINE, point


def results(*points: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": MACHINE,
        "rounds": 3,
        "seconds": 1,
        "connections": [64],
        "tasks": ["json-32"],
        "versions": {"hatch-mar": {"hatch-mar": "1.0"}},
        "points": list(points),
    }


def test_goals_are_ratios_of_medians() -> None:
    table = tabulate_echo(
        results(
            *(point("hatch-mar", rate) for rate in (100.0, 5000.0, 200.0)),
            *(point("mosec", rate) for rate in (40.0, 50.0, 60.0)),
        )
    )
    assert "| throughput, 64: mosec's | at least 5 | 4.00 |" in table
    assert "| hatch-mar | 200 [100-5,000] |" in table


def test_others_are_measured_against_the_better_one_and_the_loop_apart() -> None:
    table = tabulate_net(
        results(
            point("hatch-mar", 900.0, p99=3.0),
            point("mosec", 300.0, p99=2.0),
            point("torchserve", 450.0, p99=4.0),
            point(LOOP, 1000.0),
            point("the bare function", 2000.0),
        )
    )
    assert "| throughput, 64: the best other's | above 1 | 2.00 |" in table
    assert "| p99, 64: the best other's | at most 1.1 | 1.50 |" in table
    assert "| throughput, 64: the worker's own loop's | at least 0.8 | 0.90 |" in table
    assert "**JSON, batchSize 32**" in table


def test_a_goal_needs_those_it_speaks_of() -> None:
    assert "aim" not in tabulate_echo(results(point("mosec", 1.0)))


def test_the_fastest_is_first() -> None:
    points = Points([point("slow", 1.0), point("fast", 3.0), point("middle", 2.0)])
    assert points.names() == ["fast", "middle", "slow"]


def test_cpu_is_told_of_each_process() -> None:
    points = Points([point("hatch-mar", 1.0, cpu_us=50.0, cpu_each={"door": 30.0, "worker": 20.0})])
    assert points.cpu("hatch-mar", 64) == "50 (30 + 20)"
    assert Points([point("fastapi", 1.0)]).cpu("fastapi", 64) == "10"


def test_batches_are_as_the_handler_counted_them() -> None:
    # As read from JSON, where keys are text.
    assert Points([point("mosec", 1.0, sizes={"32": 3, "8": 1})]).batch("mosec", 64) == "26.0"
    assert Points([point("mosec", 1.0)]).batch("mosec", 64) == ""


def test_processes_of_one_name_are_one_and_small_ones_do_not_show() -> None:
    used = {Process(1, "door"): 1.0, Process(2, "w"): 2.0, Process(3, "w"): 2.0, Process(4, "x"): 0}
    assert sum_by_name(used, 1000) == {"door": 1000.0, "w": 4000.0}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([1.0, 2.0], [1.00001, 2.0], True),
        ([1.0, 2.0], [1.01, 2.0], False),
        ([1.0], [1.0, 2.0], False),
        ({"7": 0.5}, {"7": 0.50001}, True),
        ({"7": 0.5}, {"8": 0.5}, False),
        ("ok", "ok", True),
        ("ok", "no", False),
        ([], {}, False),
    ],
)
def test_answers_are_compared_but_for_last_digits(one: Any, other: Any, *, same: bool) -> None:
    assert is_close(one, other) is same
