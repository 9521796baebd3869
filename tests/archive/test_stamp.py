from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.archive.manifest import CREATED_ON
from hatch_mar.archive.stamp import FORMAT, parse_stamp, read_stamp, zip_date
from hatch_mar.errors import ProblemsError


@given(st.integers(0, 4_000_000_000))
def test_the_epoch_survives_the_manifest(seconds: int) -> None:
    stamp = read_stamp({"SOURCE_DATE_EPOCH": str(seconds)})
    assert parse_stamp(stamp).timestamp() == seconds


@pytest.mark.parametrize("environ", [{}, {"SOURCE_DATE_EPOCH": ""}])
def test_without_an_epoch_the_date_is_fixed(environ: dict[str, str]) -> None:
    assert read_stamp(environ) == CREATED_ON


@pytest.mark.parametrize("value", ["soon", "1.5", "9" * 30])
def test_an_epoch_that_is_none_is_a_problem(value: str) -> None:
    with pytest.raises(ProblemsError, match=rf"SOURCE_DATE_EPOCH: '{value}' is not a number"):
        read_stamp({"SOURCE_DATE_EPOCH": value})


def test_a_foreign_date_counts_as_the_fixed_one() -> None:
    assert parse_stamp("yesterday").strftime(FORMAT) == CREATED_ON


@pytest.mark.parametrize(("year", "written"), [(1970, 1980), (2020, 2020), (2200, 2107)])
def test_a_zip_knows_a_century_only(year: int, written: int) -> None:
    assert zip_date(datetime(year, 1, 1, tzinfo=UTC))[0] == written
