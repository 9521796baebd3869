"""The door's side of one worker's socket, for loops that run in a thread of this process."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

from hatch_mar.model.protocol import Part, Request
from hatch_mar.serve.channel import (
    Batch,
    decode_pieces,
    decode_replies,
    encode_requests,
)
from hatch_mar.serve.frames import FrameReader, Kind, encode_frame, receive
from hatch_mar.serve.packing import pack_request
from hatch_mar.serve.worker.pipelined import PipelinedLoop

if TYPE_CHECKING:
    from hatch_mar.model.protocol import Response, Servable
    from hatch_mar.model.stages import Stages


class Door:
    """Runs a `PipelinedLoop`, and speaks with it."""

    def __init__(self, servable: Servable, stages: Stages, *, batch_size: int = 1) -> None:
        """Start nothing yet."""
        self._sock, self._theirs = socket.socketpair()
        self._sock.settimeout(30)
        self._reader = FrameReader()
        self.counter = memoryview(bytearray(8)).cast("Q")
        self.loop = PipelinedLoop(
            self._theirs,
            FrameReader(),
            self.counter,
            servable,
            batch_size=batch_size,
            stages=stages,
        )
        self.failure: BaseException | None = None
        """How the loop ended, unless it was told to."""
        self.batches: list[Batch] = []
        """What came back, in order."""
        self.pieces: list[tuple[int, Response]] = []
        self._sent = 0
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        """Start the loop."""
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the loop, if it has not ended."""
        with contextlib.suppress(OSError):
            self.stop()
        self.thread.join(30)
        self._sock.close()
        self._theirs.close()
        assert not self.thread.is_alive()

    def send(self, *bodies: bytes, **fields: Any) -> None:
        """Send one request for each body, all at once; they are numbered from 0 on."""
        packed = []
        for body in bodies:
            parts = [Part("body", fields.get("content_type", "application/json"), body)]
            more = {key: value for key, value in fields.items() if key != "content_type"}
            packed.append(pack_request(self._sent, Request(f"r{self._sent}", (), parts, **more)))
            self._sent += 1
        self._sock.sendall(b"".join(encode_requests(packed)))

    def stop(self) -> None:
        """Tell the loop that it is enough."""
        self._sock.sendall(encode_frame(Kind.STOP))

    def read(self, count: int) -> list[Response]:
        """Wait until `count` replies have come in all, and return them; they are in order."""
        while self.answered < count:
            self._hear()
        numbers = [number for batch in self.batches for number in batch.numbers]
        assert numbers == sorted(numbers)
        return [response for batch in self.batches for response in batch.responses]

    def read_to_end(self) -> list[Response]:
        """Wait until the loop has ended; return all replies."""
        with contextlib.suppress(EOFError):
            while True:
                self._hear()
        return self.read(0)

    @property
    def answered(self) -> int:
        """How many replies have come."""
        return sum(len(batch.numbers) for batch in self.batches)

    def _hear(self) -> None:
        for frame in receive(self._sock, self._reader):
            if frame.kind is Kind.REPLIES:
                self.batches += decode_replies(frame.payload)
            elif frame.kind is Kind.PIECES:
                self.pieces += decode_pieces(frame.payload)

    def _run(self) -> None:
        try:
            self.loop.run()
        except BaseException as error:  # noqa: BLE001 - for the test to look at
            self.failure = error
        finally:
            self._theirs.shutdown(socket.SHUT_RDWR)
