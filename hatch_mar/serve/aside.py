"""Work that would hold up the event loop, done beside it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def run_aside(function: Callable[[], T]) -> T:
    """Return what `function` returns in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(settle_with: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if result.done() else settle_with())

    def work() -> None:
        try:
            value = function()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            reason = error
            settle(lambda: result.set_exception(reason))
        else:
            settle(lambda: result.set_result(value))

    threading.Thread(target=work, name="hatch-mar-aside", daemon=True).start()
    return await result
