"""How a mistake reaches the person who runs hatch, pip, build or uv: one message, no traceback."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hatch_mar.errors import HatchMarError, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def one_message(stop: Callable[[str], object]) -> Iterator[None]:
    """Hand the message of an expected error to `stop`, which ends the program.

    An `OSError` is the machine's (a full disk, a file that may not be read). Anything else is a bug
    of ours and keeps its traceback. `HATCH_MAR_DEBUG=1` lets everything through.
    """
    try:
        yield
    except (HatchMarError, OSError) as error:
        if os.environ.get("HATCH_MAR_DEBUG") == "1":
            raise
        message = str(error) if isinstance(error, HatchMarError) else explain(error)
        stop(message if message.startswith("hatch-mar:") else f"hatch-mar: {message}")


def exit_with(message: str) -> None:
    """End the program with `message` on stderr: what a hook without an `app` has to do."""
    raise SystemExit(message)
