from __future__ import annotations

import array
from typing import Any

import pytest

from benchmarks.gpu import agrees, count_images, find_knee, make_pixels, merge_rates, read_values
from benchmarks.report.gpu import tabulate_gpu
from tests.support.benchmark_points import MACHINE, point


def floats(*values: float) -> bytes:
    return array.array("f", values).tobytes()


def test_the_knee_is_the_smallest_batch_that_is_nearly_as_good_as_the_best() -> None:
    assert find_knee({1: 100.0, 8: 700.0, 16: 905.0, 32: 1000.0, 64: 990.0}) == 16
    assert find_knee({1: 100.0}) == 1


def test_a_client_sends_the_knee_but_no_more_than_others_take() -> None:
    assert count_images("pixels-1", 16) == 16
    assert count_images("encoded-1", 256) == 64
    assert count_images("pixels-16", 16) == 1


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        (floats(1.0, -2.0), True),
        (floats(1.09, -2.0), True),
        (floats(1.2, -2.0), False),
        (floats(1.0), False),
        (b"", False),
    ],
)
def test_scores_may_differ_by_a_share_of_the_greatest(answer: bytes, *, same: bool) -> None:
    assert agrees(answer, floats(1.0, -2.0)) is same


def test_each_request_has_an_image_of_its_own() -> None:
    one, other = make_pixels(0, 1).body, make_pixels(1, 1).body
    assert len(one) == 224 * 224 * 3
    assert one != other
    assert make_pixels(1, 3).body == other * 3


def test_the_loop_has_the_median_of_its_turns() -> None:
    turns = [{"eager": {"1": 10.0, "8": 70.0}}, {"eager": {"8": 80.0}}, {"eager": {"8": 90.0}}]
    assert merge_rates(turns) == {"eager": {"1": 10.0, "8": 80.0}}


def test_memory_is_read_from_the_metrics() -> None:
    exposition = (
        "# TYPE hatch_mar_gpu_memory_reserved_peak_megabytes gauge\n"
        'hatch_mar_gpu_memory_reserved_peak_megabytes{model_name="a"} 812.0\n'
        'hatch_mar_gpu_memory_reserved_peak_megabytes{model_name="b"} 640\n'
        "other_metric 7\n"
    )
    assert list(read_values(exposition, "gpu_memory_reserved_peak_megabytes")) == [812.0, 640.0]


def test_what_a_gpu_does_is_compared_with_the_loop() -> None:
    def at(peer: str, rate: float, task: str = "pixels-1", **others: Any) -> dict[str, Any]:
        return point(peer, rate, task=task, connections=1, **others)

    single = "pixels-8"
    results = {
        "machine": MACHINE,
        "rounds": 3,
        "seconds": 1,
        "connections": [1],
        "tasks": ["pixels-1", single],
        "images": {"pixels-1": 8, single: 1},
        "knee": 8,
        "limit": 2000,
        "loop": {
            "name": "GPU of a kind",
            "torch": "2.13.0",
            "rates": {"eager": {"1": 200.0, "8": 1000.0}, "graphs": {"1": 400.0, "8": 1600.0}},
        },
        "extras": [
            {"peer": "hatch-mar, maxGPUMemory", "reserved_mb": 1500.0},
            {"peer": "both", "pixels-1": 500.0, single: 400.0},
        ],
        "versions": {"hatch-mar": {"hatch-mar": "1.0"}},
        "points": [
            at("hatch-mar", 112.5),
            at("hatch-mar, graphs", 190.0),
            at("hatch-mar", 600.0, single, p50=6.5),
            at("hatch-mar, graphs", 900.0, single),
            at("asyncio-protocol", 800.0, single),
        ],
    }
    table = tabulate_gpu(results)
    for row in (
        "images/s, client batches, eager: the same loop's | at least 0.9 | 0.90",
        "images/s, client batches, graphs: the same loop's | at least 0.9 | 0.95",
        "requests/s, one image each: HTTP's or the loop's | at least 0.9 | 0.75",
        "ms added at 1 connection |  | 1.50",
        "requests/s, graphs: eager's |  | 1.50",
        "memory set aside, at most: maxGPUMemory | at most 1 | 0.75",
        "images/s of two models at once: one's alone |  | 1.00",
    ):
        assert f"| {row} |" in table
