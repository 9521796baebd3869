"""What the connections of a listener share, and how long one of them may hold up a worker."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from hatch_mar.api.access_log import AccessLog
    from hatch_mar.api.cors import Cors
    from hatch_mar.api.tokens import Tokens
    from hatch_mar.serve import Job, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What every connection of a listener shares."""

    service: Service
    max_request_size: int = 6_553_500
    max_response_size: int = 6_553_500
    access_log: AccessLog | None = None
    idle_timeout: float = 75.0
    """Seconds after which an idle connection is closed: longer than usual clients and proxies keep
    theirs, so that it is they who close it and never a request that meets a closing door."""
    predicts: bool = True
    """Whether predictions are served here at all; not on the management or metrics port."""
    tokens: Tokens | None = None
    """Whose inference key a prediction needs; None lets everybody in."""
    cors: Cors | None = None
    """What browsers are told about pages of other origins."""
    stream_patience: float = 30.0
    """Seconds for which a client may keep a worker waiting by not reading its stream."""


def reset(transport: asyncio.Transport) -> None:
    """Break a connection so that its end cannot be taken for the end of an answer."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class StreamGuard:
    """Holds the worker of a stream while its client does not read, but not for ever."""

    def __init__(
        self, lane: Lane, loop: asyncio.AbstractEventLoop, cut_off: Callable[[], None]
    ) -> None:
        """Call `cut_off` when a client has not read for the lane's `stream_patience`."""
        self._lane = lane
        self._loop = loop
        self._cut_off = cut_off
        self._job: Job | None = None
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, job: Job) -> None:
        """Hear that the client of `job` does not keep up."""
        self.release()
        self._lane.service.hold(job)
        self._job = job
        self._timer = self._loop.call_later(self._lane.stream_patience, self._cut_off)

    def release(self) -> None:
        """Hear that it reads again, or is gone."""
        if self._job is not None and self._timer is not None:
            self._timer.cancel()
            self._lane.service.release(self._job)
            self._job = self._timer = None
