"""Whether maxGPUMemory suits a model is told in words, once it is known."""

from __future__ import annotations

import pytest

from hatch_mar.model.protocol import MemoryUse
from hatch_mar.serve.devices.advice import advise


def use(reserved: int) -> MemoryUse:
    return MemoryUse(allocated=reserved - 1, reserved=reserved, total=80_000)


@pytest.mark.parametrize("reserved", [501, 899])
def test_a_limit_that_suits_needs_no_word(reserved: int) -> None:
    assert advise(1000, use(reserved), answered=10_000) == ""


def test_one_that_is_nearly_reached() -> None:
    assert advise(1000, use(950), answered=0) == (
        "system.maxGPUMemory is 1000 MB, of which it has taken 950 MB: batches may find no room; "
        "raise it to 1187 if the GPU has that much"
    )


def test_one_that_is_far_too_high() -> None:
    assert advise(4000, use(400), answered=100) == (
        "system.maxGPUMemory is 4000 MB, of which it has taken 400 MB at most: 500 would do, and "
        "leave room for other workers"
    )


def test_a_worker_that_has_done_little_yet_shows_nothing() -> None:
    assert advise(4000, use(400), answered=99) == ""


def test_without_a_limit_or_a_measurement_there_is_nothing_to_say() -> None:
    assert advise(None, use(400), answered=1000) == ""
    assert advise(1000, None, answered=1000) == ""
