"""Looks after the GPUs while workers run on them: one that is lost is not used any more.

NVML is asked every ten seconds, and at once when a worker's device has failed. It is asked in a
thread: a GPU that is about to go may keep who asks waiting.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from hatch_mar.serve.aside import run_aside
from hatch_mar.serve.devices.discovery import find_lost

if TYPE_CHECKING:
    from hatch_mar.serve.devices.placement import Placement

logger = logging.getLogger("hatch_mar.serve")

WATCH_SECONDS = 10.0
"""How long a loss may go unnoticed on a GPU that has nothing to do."""


class Watch:
    """Keeps `Placement.lost` true. It belongs to the event loop that runs when it is started."""

    def __init__(self, placement: Placement) -> None:
        """Watch the devices of `placement`, from `start` on."""
        self._placement = placement
        self._doubt = asyncio.Event()
        self._missed: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, if that has not been done and there is anything to watch."""
        if self._task is None and self._placement.devices:
            self._placement.on_doubt = self._doubt.set
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._doubt.wait(), WATCH_SECONDS)
            self._doubt.clear()
            try:
                await self.look()
            except Exception:
                logger.exception("the GPUs could not be looked at; they are again in a while")

    async def look(self) -> None:
        """Ask NVML, and put on record which devices are gone, and which are back.

        Only NVML can say that a device is back which it had lost. Where workers could not begin on
        one although NVML sees nothing wrong, it stays lost.
        """
        placement = self._placement
        lost = await run_aside(lambda: find_lost(placement.devices))
        if lost is None:
            return
        for device in placement.devices:
            if device.uuid in lost:
                if device.uuid not in placement.lost:
                    self._missed.add(device.uuid)
                placement.lose(device, lost[device.uuid])
            elif device.uuid in self._missed:
                self._missed.remove(device.uuid)
                placement.regain(device)
