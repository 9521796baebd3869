"""Streamed answers, as an asynchronous iterator that its reader's pace holds back."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hatch_mar.serve import Request, Response, Service

MANY = 16
"""Pieces that may wait for their reader before the worker has to."""


async def stream(
    service: Service, model: str, version: str | None, request: Request
) -> AsyncIterator[Response]:
    """Yield every piece of the answer, the last one last; leaving early cancels the request.

    Raises:
        RequestError: as `Service.submit`.
    """
    pieces: deque[Response] = deque()
    arrived = asyncio.Event()
    last: list[Response] = []

    def on_piece(response: Response) -> None:
        pieces.append(response)
        if len(pieces) == MANY:
            service.hold(job)
        arrived.set()

    def on_reply(response: Response) -> None:
        last.append(response)
        arrived.set()

    job = service.submit(model, version, request, on_reply, on_piece)
    try:
        while True:
            await arrived.wait()
            arrived.clear()
            while pieces:
                full = len(pieces) >= MANY
                piece = pieces.popleft()
                if full and len(pieces) < MANY and not last:
                    service.release(job)
                yield piece
            if last:
                yield last[0]
                return
    finally:
        if not last:
            service.cancel(job)
