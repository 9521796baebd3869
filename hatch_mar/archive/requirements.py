"""The lines of a requirements file, as pip reads them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def logical_lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the lines that mean something, joined where a backslash says so, with their numbers.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    pending, start = "", 0
    text = data.decode("utf-8-sig")  # pip too passes over a byte order mark
    for number, line in enumerate(text.splitlines(), start=1):
        start = start if pending else number
        if line.rstrip().endswith("\\"):
            pending += line.rstrip()[:-1]
            continue
        logical = re.sub(r"(^|\s)#.*$", "", pending + line).strip()
        pending = ""
        if logical:
            yield start, logical
    if pending.strip():  # the file ends where a line was to go on
        yield start, pending.strip()
