"""The frames that go over the socket between the door and a worker.

A frame is `<u32 length> <u8 kind> <u8 check>` and `length` bytes of payload, little-endian.
`hatch_mar.serve.channel` packs requests and replies, many to a frame; only what is sent once per
worker is JSON. Nothing in here touches a socket but `receive`, and nothing is ever unpickled.

    LOAD      door to worker   JSON: `LoadOptions`, and whether to check the golden examples
    PREDICT   door to worker   requests
    MORE      door to worker   requests, of which others follow: it is one order, in several frames
    STOP      door to worker   nothing: answer what you hold, then leave
    LOADED    worker to door   JSON: what the door may want to know of the loaded model
    FAILED    worker to door   JSON: why the model could not be loaded
    REPLIES   worker to door   batches: how many, begun when, how long, and their replies
    SAMPLES   worker to door   JSON: what the handler measured
    PIECES    worker to door   intermediate answers, each of a request whose reply is still to come
    FORGET    door to worker   numbers of requests that nobody waits for any more
    DEVICE    worker to door   JSON: `DeviceReport`, when it has changed

A large body may come as shared memory beside its frame instead (`hatch_mar.serve.shared`).

Whatever is malformed raises `ChannelError`, and so does a stream that ends inside a frame.
"""

from __future__ import annotations

import json
import os
import struct
from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from hatch_mar.serve import shared

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence

Buffer = bytes | bytearray | memoryview

MAX_PAYLOAD = (1 << 32) - 1
_CHUNK = 1 << 16
"""How much is received at once. The C library maps larger buffers, and unmaps them, one by one."""
_FRAME = struct.Struct("<IBB")


class ChannelError(Exception):
    """Bytes that are not what the other side would send."""


class Kind(IntEnum):
    """What a frame is about."""

    LOAD = 1
    PREDICT = 2
    STOP = 3
    LOADED = 4
    FAILED = 5
    REPLIES = 6
    SAMPLES = 7
    PIECES = 8
    FORGET = 9
    DEVICE = 10
    MORE = 11


_KINDS = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    """One whole frame."""

    kind: Kind
    payload: memoryview


def _check(length: int, kind: int) -> int:
    """Digest a frame's head in a byte, so that a corrupt length is seen before it is waited for."""
    return (length ^ length >> 8 ^ length >> 16 ^ length >> 24 ^ kind * 29 ^ 0xA5) & 0xFF


def encode_frame(kind: Kind, pieces: Sequence[Buffer] = ()) -> bytes:
    """Join `pieces` into one frame.

    Raises:
        ChannelError: it would be larger than 4 GiB.
    """
    length = sum(map(len, pieces))
    if length > MAX_PAYLOAD:
        raise ChannelError(f"a frame of {length} bytes is too large")
    frame = b"".join((_FRAME.pack(length, kind, _check(length, kind)), *pieces))
    if len(frame) != _FRAME.size + length:  # a view whose items are wider than bytes
        return encode_frame(kind, (frame[_FRAME.size :],))
    return frame


def encode_json(kind: Kind, value: object) -> bytes:
    """Make a frame of a JSON value."""
    return encode_frame(kind, (json.dumps(value).encode(),))


def decode_json(payload: Buffer) -> Any:  # noqa: ANN401 - JSON
    """Read the value of a JSON frame."""
    try:
        return json.loads(bytes(payload))
    except ValueError as error:
        raise ChannelError(f"not JSON: {error}") from error


class FrameReader:
    """Cuts a stream into frames, however the stream is cut."""

    def __init__(self) -> None:
        """Expect a frame's first byte."""
        self._head = b""
        self._kind = Kind.STOP
        self._payload: memoryview | None = None
        self._filled = 0
        self._descriptors: deque[int] = deque()
        """Shared memory that has come, in the order in which frames speak of it."""

    def add(self, descriptors: Iterable[int]) -> None:
        """Take the shared memory that came along with the bytes that are about to be read."""
        self._descriptors.extend(descriptors)

    def take_shared(self, size: int) -> memoryview:
        """Return the next shared memory, of `size` bytes.

        Raises:
            ChannelError: none has come, or not so much.
        """
        if not self._descriptors:
            raise ChannelError("shared memory is spoken of that has not come")
        try:
            return memoryview(shared.SharedMemory(self._descriptors.popleft(), size))
        except OSError as error:
            raise ChannelError(str(error)) from error

    def close(self) -> None:
        """Let go of the shared memory that nobody has asked for."""
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes; return the frames that are complete now, as views of `data`."""
        frames: list[Frame] = []
        if self._payload is not None:
            space = self._payload[self._filled :]
            taken = min(len(space), len(data))
            space[:taken] = data[:taken]
            frames += self.filled(taken)
            data = data[taken:]
        if self._head:
            data = self._head + data
            self._head = b""
        view, position, end = memoryview(data).toreadonly(), 0, len(data)
        while end - position >= _FRAME.size:
            length, kind = self._read_head(view, position)
            position += _FRAME.size
            if end - position < length:
                self._begin(length, kind, view[position:])
                return frames
            frames.append(Frame(kind, view[position : position + length]))
            position += length
        self._head = bytes(view[position:])
        return frames

    @property
    def is_within(self) -> bool:
        """Whether a frame has begun, and the rest of it is on its way."""
        return self._payload is not None or bool(self._head)

    def space(self) -> memoryview | None:
        """Return where the rest of a begun frame may be received in place, or None."""
        return None if self._payload is None else self._payload[self._filled :]

    def filled(self, count: int) -> list[Frame]:
        """Say that `count` bytes were received into `space()`."""
        assert self._payload is not None
        self._filled += count
        if self._filled < len(self._payload):
            return []
        frame = Frame(self._kind, self._payload.toreadonly())
        self._payload = None
        return [frame]

    def finish(self) -> None:
        """Say that the stream has ended.

        Raises:
            ChannelError: it ended inside a frame.
        """
        if self._head or self._payload is not None:
            raise ChannelError("the stream ends inside a frame")

    @staticmethod
    def _read_head(view: memoryview, position: int) -> tuple[int, Kind]:
        length, number, check = _FRAME.unpack_from(view, position)
        kind = _KINDS.get(number)
        if kind is None or check != _check(length, number):
            raise ChannelError("a frame's head is corrupt")
        return length, kind

    def _begin(self, length: int, kind: Kind, start: memoryview) -> None:
        self._kind = kind
        self._payload = memoryview(bytearray(length))
        self._payload[: len(start)] = start
        self._filled = len(start)


def receive(sock: socket.socket, reader: FrameReader, flags: int = 0) -> list[Frame]:
    """Receive once; return the frames that are complete now.

    Raises:
        EOFError: the other side is gone.
        ChannelError: what it sent makes no sense.
        BlockingIOError: there is nothing to receive, and the socket does not wait.
    """
    space = reader.space()
    if space is None:
        data, descriptors = shared.receive(sock, _CHUNK, flags)
        reader.add(descriptors)
        if data:
            return reader.feed(data)
    else:
        count, descriptors = shared.receive_into(sock, space, flags)
        reader.add(descriptors)
        if count:
            return reader.filled(count)
    reader.finish()
    raise EOFError
