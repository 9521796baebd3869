"""Large bodies travel as shared memory, and nobody leaves any behind."""

from __future__ import annotations

import gc
import os
import resource
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hatch_mar.model.protocol import Part, Request, Response
from hatch_mar.serve import shared
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
    shared._spares.clear()
    gc.collect()
    before = list_open()
    yield
    gc.collect()
    shared._spares.clear()
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


Pair = tuple[socket.socket, socket.socket]


def hand_over(pair: Pair, data: bytes | memoryview) -> tuple[int, memoryview]:
    """Send `data` as a worker sends an answer; return which memory it was, and what came."""
    memories: list[SharedMemory] = []
    (frame,) = encode_replies([Batch([1], [Response(200, data)], 0, 0)], memories)
    send(pair[0], frame, memories)
    (memory,) = memories
    reader = FrameReader()
    (batch,) = decode_replies(read_frame(pair[1], reader).payload, reader.take_shared)
    body = batch.responses[0].body
    assert isinstance(body, memoryview)
    return os.fstat(memory.descriptor).st_ino, body


def test_memory_is_used_again_when_its_reader_has_let_go_of_it(pair: Pair) -> None:
    first, body = hand_over(pair, LARGE)
    assert body == LARGE
    del body
    second, body = hand_over(pair, LARGE[::-1] + LARGE)
    assert (second, body == LARGE[::-1] + LARGE) == (first, True)
    del body
    third, body = hand_over(pair, LARGE)
    assert (third, body == LARGE) == (first, True)


def test_a_request_that_was_refused_leaves_its_memory_to_the_next() -> None:
    numbers = []
    for _ in range(2):
        memory = find(gather(LARGE))
        assert memory is not None
        numbers.append(os.fstat(memory.descriptor).st_ino)
        del memory
    assert numbers[0] == numbers[1]


def test_who_keeps_a_view_keeps_the_memory(pair: Pair) -> None:
    first, body = hand_over(pair, LARGE)
    view = body[5:10]
    del body
    second, _ = hand_over(pair, bytes(len(LARGE)))
    assert second != first
    assert view == LARGE[5:10]


def test_who_passes_a_body_on_shares_it_with_somebody_unknown(pair: Pair) -> None:
    first, body = hand_over(pair, LARGE)
    same, again = hand_over(pair, body)
    assert same == first
    del body
    second, other = hand_over(pair, bytes(len(LARGE)))
    assert second != first
    del again, other
    assert hand_over(pair, LARGE)[0] == second


def test_what_went_to_two_is_not_used_again(pair: Pair) -> None:
    body = gather(LARGE)
    memory = find(body)
    assert memory is not None
    number = os.fstat(memory.descriptor).st_ino
    reader = FrameReader()
    for _ in range(2):
        send(pair[0], encode_frame(Kind.STOP), [memory])
        read_frame(pair[1], reader)
    views = [reader.take_shared(len(LARGE)) for _ in range(2)]
    del body, memory
    views.pop()
    second, _ = hand_over(pair, bytes(len(LARGE)))
    assert second != number
    assert views == [LARGE]


def test_a_child_may_read_on(pair: Pair) -> None:
    memory, reader = share(LARGE), FrameReader()
    assert memory is not None
    number = os.fstat(memory.descriptor).st_ino
    send(pair[0], encode_frame(Kind.STOP), [memory])
    read_frame(pair[1], reader)
    view = reader.take_shared(len(LARGE))
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    del memory, view
    assert hand_over(pair, LARGE)[0] != number


def test_only_some_memory_is_kept(pair: Pair) -> None:
    before = len(list_open())
    bodies = [hand_over(pair, LARGE) for _ in range(20)]
    del bodies
    assert len(list_open()) - before == 8
    shared._spares.clear()
    hand_over(pair, bytes(17 << 20))
    assert len(list_open()) == before


def test_a_body_without_a_descriptor_for_shared_memory_stays_whole() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert gather(LARGE) == LARGE
        assert share(LARGE) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_threads_and_forks_do_not_disturb_each_other(pair: Pair) -> None:
    stop = threading.Event()

    def fork_on() -> None:
        while not stop.is_set():
            shared._spares.fork()

    thread = threading.Thread(target=fork_on)
    thread.start()
    try:
        for value in range(100):
            _, body = hand_over(pair, bytes([value % 256]) * SHARED_FROM)
            assert body[0] == body[-1] == value % 256
            del body
    finally:
        stop.set()
        thread.join()


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 255), st.integers(0, 2))))
def test_nobody_ever_sees_another_ones_body(steps: list[tuple[int, int, int]]) -> None:
    """In steps, somebody lets go of a body, and gets one of some size, or another one's."""
    shared._spares.clear()
    held: dict[int, tuple[int, memoryview]] = {}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for place, value, kind in steps:
            other = held.get(place + 1)
            if kind == 2 and other is not None:  # passed on
                held[place] = other[0], hand_over((ours, theirs), other[1])[1]
            else:
                size = SHARED_FROM + value * kind * 1000
                held.pop(place, None)
                body = hand_over((ours, theirs), bytes([value]) * size)[1]
                held[place] = value, body
            for expected, body in held.values():
                assert body[0] == body[-1] == expected
    held.clear()
