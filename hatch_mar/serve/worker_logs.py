"""How a worker writes what is logged in it: for people, as TorchServe's, or for programs.

The door says which in `HATCH_MAR_WORKER_LOG`. For programs a record is one line, which begins with
a character that no print does (RFC 7464's record separator), so that the door can tell them apart.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VARIABLE = "HATCH_MAR_WORKER_LOG"
RECORD = "\x1e"
_FOR_PEOPLE = "%(levelname)s %(name)s: %(message)s"


def set_up_logging() -> None:
    """Send records of INFO and above where the door expects them."""
    style = os.environ.pop(VARIABLE, "")
    if style == "torchserve":
        logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
        return
    logging.basicConfig(level=logging.INFO, format=_FOR_PEOPLE)
    if style == "json":
        logging.getLogger().handlers[0].setFormatter(RecordFormatter())


class RecordFormatter(logging.Formatter):
    """Renders a record as one line of JSON, with the ids of the requests at hand."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        import json  # noqa: PLC0415 - few workers log at all

        fields = {
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        ids = _requests_at_hand()
        return RECORD + json.dumps({**fields, "request_ids": ids} if ids else fields, default=str)


_requests_at_hand: Callable[[], Sequence[str]] = list


def tell_requests(at_hand: Callable[[], Sequence[str]]) -> None:
    """Say whose requests records are about: `at_hand` returns their ids."""
    global _requests_at_hand  # noqa: PLW0603 - a process has one log
    _requests_at_hand = at_hand
