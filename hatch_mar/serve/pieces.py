"""The pieces of one streamed answer, for somebody who awaits them one by one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from hatch_mar.model.protocol import Request, Response
    from hatch_mar.serve.service import Service

MOST_WAITING = 1 << 20
"""Bytes of pieces that may wait here before their worker has to."""


class PieceQueue:
    """An asynchronous iterator over the pieces of an answer; the last one ends it."""

    def __init__(self, service: Service, model: str, version: str | None, request: Request) -> None:
        """Submit `request`.

        Raises:
            RequestError: as `Service.submit` does.
        """
        self._service = service
        self._pieces: asyncio.Queue[Response] = asyncio.Queue()
        self._size = 0
        self._held = False
        self._ended = False
        self.exhausted = False
        """Whether the last piece was taken."""
        self._job = service.submit(model, version, request, self._end, self._add)

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Response:
        """Return the next piece."""
        if self.exhausted:
            raise StopAsyncIteration
        piece = await self._pieces.get()
        self._size -= len(piece.body)
        self.exhausted = self._ended and self._pieces.empty()
        if self._held and not self._ended and self._size <= MOST_WAITING // 2:
            self._held = False
            self._service.release(self._job)
        return piece

    def close(self) -> None:
        """Take no more: the request is cancelled, if it is not answered yet."""
        if not self._ended:
            self._service.cancel(self._job)

    def _add(self, piece: Response) -> None:
        self._pieces.put_nowait(piece)
        self._size += len(piece.body)
        if not self._held and self._size > MOST_WAITING:
            self._held = True
            self._service.hold(self._job)

    def _end(self, last: Response) -> None:
        self._ended = True
        self._pieces.put_nowait(last)
        self._size += len(last.body)
