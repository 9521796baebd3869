"""The one time that an archive knows: not when it was built, but when its author says it was.

`createdOn` of the manifest holds it, so whoever has the manifest can write the same bytes again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hatch_mar.archive.manifest import CREATED_ON
from hatch_mar.errors import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "%d/%m/%Y %H:%M:%S"
"""torch-model-archiver's; ours is always UTC."""
ZIP_FIRST = (1980, 1, 1, 0, 0, 0)
ZIP_LAST = (2107, 12, 31, 23, 59, 58)


def read_stamp(environ: Mapping[str, str]) -> str:
    """Return `createdOn` as `SOURCE_DATE_EPOCH` wants it, or the fixed date.

    Raises:
        ProblemsError: the variable is no number of seconds.
    """
    value = environ.get("SOURCE_DATE_EPOCH")
    if not value:
        return CREATED_ON
    try:
        return datetime.fromtimestamp(int(value), UTC).strftime(FORMAT)
    except (ValueError, OverflowError, OSError) as error:
        message = f"{value!r} is not a number of seconds since 1970; unset it or correct it"
        raise ProblemsError([Problem("environment", "SOURCE_DATE_EPOCH", message)]) from error


def parse_stamp(created_on: str) -> datetime:
    """Read a `createdOn`; one that is in no form we know counts as the fixed date."""
    try:
        return datetime.strptime(created_on, FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return datetime.strptime(CREATED_ON, FORMAT).replace(tzinfo=UTC)


def zip_date(moment: datetime) -> tuple[int, int, int, int, int, int]:
    """Return `moment` within what a zip header can say."""
    date = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    return min(max(date, ZIP_FIRST), ZIP_LAST)
