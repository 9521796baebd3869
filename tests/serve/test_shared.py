"""Large bodies travel as shared memory, and nobody leaves any behind."""

from __future__ import annotations

import gc
import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hatch_mar.model.protocol import Part, Request, Response
from hatch_mar.serve.channel import (
    Batch,
    decode_pieces,
    decode_replies,
    decode_requests,
    encode_pieces,
    encode_replies,
    encode_requests,
)
from hatch_mar.serve.frames import ChannelError, Frame, FrameReader, Kind, encode_frame, receive
from hatch_mar.serve.gathering import GatheredBody
from hatch_mar.serve.packing import pack_request
from hatch_mar.serve.shared import SHARED_FROM, SharedMemory, find, send, share

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = os.urandom(SHARED_FROM + 5)

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux shares memory")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test after which a file descriptor is open that was not open before."""
    gc.collect()
    before = list_open()
    yield
    gc.collect()
    assert list_open() <= before


def list_open() -> set[str]:
    """Return the file descriptors of this process."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two connected sockets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def read_frame(sock: socket.socket, reader: FrameReader) -> Frame:
    frames: list[Frame] = []
    while not frames:
        frames = receive(sock, reader)
    (frame,) = frames
    return frame


def gather(data: bytes, size: int = 65_536) -> bytes | bytearray | memoryview:
    body = GatheredBody(data[:size])
    for start in range(size, len(data), size):
        body.add(data[start : start + size])
    return body.whole()


def test_a_body_that_grows_large_can_be_shared() -> None:
    body = gather(LARGE)
    assert body == LARGE
    assert find(body) is not None


def test_a_small_body_is_not_shared() -> None:
    body = gather(LARGE[:-6])
    assert body == LARGE[:-6]
    assert find(body) is None
    assert share(body) is None


def test_a_body_without_room_in_shared_memory_stays_whole() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SHARED_FROM + 3, hard))
    try:
        assert gather(LARGE) == LARGE
        assert share(LARGE) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_request_and_its_body_arrive(pair: tuple[socket.socket, socket.socket]) -> None:
    request = Request("id", (("a", "b"),), [Part("body", "text/plain", gather(LARGE))], "p")
    memories: list[SharedMemory] = []
    (frame,) = encode_requests([pack_request(7, request)], memories)
    assert len(frame) < 1000
    assert send(pair[0], frame, memories) == len(frame)
    reader = FrameReader()
    ((number, arrived),) = decode_requests(read_frame(pair[1], reader).payload, reader.take_shared)
    assert number == 7
    assert arrived == request


def test_requests_with_and_without_come_in_order(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    bodies = [b"small", gather(LARGE), gather(LARGE[::-1]), b"", gather(LARGE)]
    packed = [
        pack_request(number, Request("id", (), [Part("body", "", body)]))
        for number, body in enumerate(bodies)
    ]
    memories: list[SharedMemory] = []
    reader = FrameReader()
    arrived: list[tuple[int, Request]] = []
    for frame in encode_requests(packed, memories):
        send(pair[0], frame, memories)
        memories.clear()
    while len(arrived) < len(bodies):
        for frame_ in receive(pair[1], reader):
            arrived += decode_requests(frame_.payload, reader.take_shared)
    assert [request.parts[0].data for _, request in arrived] == bodies


@pytest.mark.parametrize(
    "response",
    [
        Response(200, LARGE),
        Response(201, LARGE, "Made", "text/plain", (("x", "y"),)),
        Response(500, LARGE, error=True),
    ],
    ids=["plain", "with headers", "error"],
)
def test_a_reply_and_its_body_arrive(
    pair: tuple[socket.socket, socket.socket], response: Response
) -> None:
    memories: list[SharedMemory] = []
    (frame,) = encode_replies([Batch([1, 2], [response, Response(200, b"x")], 0, 0)], memories)
    send(pair[0], frame, memories)
    reader = FrameReader()
    (batch,) = decode_replies(read_frame(pair[1], reader).payload, reader.take_shared)
    assert batch.responses == [response, Response(200, b"x")]


def test_memory_that_nobody_asked_for_is_let_go(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    memory = share(LARGE)
    assert memory is not None
    send(pair[0], encode_frame(Kind.STOP), [memory])
    reader = FrameReader()
    read_frame(pair[1], reader)
    reader.close()


def test_memory_that_has_not_come_is_an_error() -> None:
    memories: list[SharedMemory] = []
    frames = list(encode_replies([Batch([1], [Response(200, LARGE)], 0, 0)], memories))
    (frame,) = FrameReader().feed(frames[0])
    with pytest.raises(ChannelError, match="has not come"):
        list(decode_replies(frame.payload, FrameReader().take_shared))
    with pytest.raises(ChannelError, match="where none can come"):
        list(decode_replies(frame.payload))


def test_pieces_of_a_stream_are_not_shared() -> None:
    (frame,) = FrameReader().feed(encode_pieces([(1, Response(200, LARGE))]))
    assert decode_pieces(frame.payload) == [(1, Response(200, LARGE))]


def test_memory_that_could_shrink_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    loose = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.ftruncate(loose, SHARED_FROM)
    socket.send_fds(pair[0], [encode_frame(Kind.STOP)], [loose])
    os.close(loose)
    reader = FrameReader()
    read_frame(pair[1], reader)
    with pytest.raises(ChannelError, match="it could shrink"):
        reader.take_shared(SHARED_FROM)


def test_memory_that_is_too_small_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    memory = share(LARGE)
    assert memory is not None
    send(pair[0], encode_frame(Kind.STOP), [memory])
    reader = FrameReader()
    read_frame(pair[1], reader)
    with pytest.raises(ChannelError, match="cannot be mapped"):
        reader.take_shared(len(LARGE) + 10_000)


def test_a_large_part_of_a_form_travels_with_the_others() -> None:
    memory = share(bytes(SHARED_FROM))
    assert memory is not None
    parts = [Part("x", "", b"1"), Part("body", "", memoryview(memory))]
    memories: list[SharedMemory] = []
    (frame,) = encode_requests([pack_request(1, Request("r", (), parts))], memories)
    assert memories == []
    ((_, found),) = decode_requests(FrameReader().feed(frame)[0].payload)
    assert [len(part.data) for part in found.parts] == [1, SHARED_FROM]
