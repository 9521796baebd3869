"""A handler's traceback as its author wants to read it: without the frames of the server."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

PACKAGE = str(Path(__file__).parent.parent) + os.sep


def render_traceback(error: BaseException) -> str:
    """Return `error` as Python prints it, from the first frame that is the author's.

    An error that never left our code is shown whole: then the server is where to look.
    """
    frames = _skip_ours(error.__traceback__)
    shown = frames if frames is not None or _is_import_problem(error) else error.__traceback__
    return "".join(traceback.format_exception(type(error), error, shown)).rstrip("\n")


def summarise(error: BaseException) -> str:
    """Return `error` in one line: its type and message."""
    return traceback.format_exception_only(error)[-1].strip().splitlines()[0]


def _skip_ours(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def _is_ours(filename: str) -> bool:
    machinery = "importlib" in filename and ("<frozen" in filename or "lib" in filename)
    return machinery or filename.startswith(PACKAGE)


def _is_import_problem(error: BaseException) -> bool:
    """Tell whether the place is in the message already, as in a syntax error."""
    return isinstance(error, ImportError | SyntaxError)
