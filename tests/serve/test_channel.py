"""Requests and replies survive the way to the worker and back, however the stream is cut."""

from __future__ import annotations

import socket
import struct
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.model.protocol import Part, Request, Response
from hatch_mar.serve.channel import (
    Batch,
    decode_replies,
    decode_requests,
    encode_replies,
    encode_requests,
)
from hatch_mar.serve.frames import (
    ChannelError,
    Frame,
    FrameReader,
    Kind,
    decode_json,
    encode_frame,
    encode_json,
    receive,
)
from hatch_mar.serve.headers import HeaderBlock
from hatch_mar.serve.packing import pack_request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FIELD = st.text(st.characters(exclude_characters="\0"), max_size=8)
HEADERS = st.lists(st.tuples(FIELD, FIELD), max_size=3)
NUMBER = st.integers(0, 2**32 - 1)
REQUESTS = st.builds(
    Request,
    id=st.text(max_size=36),
    headers=HEADERS,
    parts=st.lists(
        st.builds(Part, st.text(max_size=5), st.text(max_size=5), st.binary()), max_size=3
    ),
    url_path=st.text(max_size=5),
    explain=st.booleans(),
    describe=st.booleans(),
)
RESPONSES = st.builds(
    Response,
    status=st.integers(0, 999),
    body=st.binary(),
    phrase=st.text(max_size=5),
    content_type=st.none() | st.text(max_size=5),
    headers=HEADERS,
    error=st.booleans(),
)
NUMBERED_REQUESTS = st.lists(st.tuples(NUMBER, REQUESTS), max_size=4)
BATCHES = st.lists(
    st.builds(
        lambda replies, started, seconds: Batch(
            [number for number, _ in replies], [reply for _, reply in replies], started, seconds
        ),
        st.lists(st.tuples(NUMBER, RESPONSES), max_size=3),
        st.floats(0, 1e9),
        st.floats(0, 1e3),
    ),
    max_size=3,
)


def read_all(chunks: Sequence[bytes]) -> list[Frame]:
    reader = FrameReader()
    frames = [frame for chunk in chunks for frame in reader.feed(chunk)]
    reader.finish()
    return frames


def send(numbered: Sequence[tuple[int, Request]]) -> list[bytes]:
    return list(encode_requests([pack_request(number, request) for number, request in numbered]))


def plain(request: Request) -> tuple[object, ...]:
    parts = [(part.name, part.content_type, bytes(part.data)) for part in request.parts]
    return (
        request.id,
        list(request.headers),
        parts,
        request.url_path,
        request.explain,
        request.describe,
    )


def plain_response(response: Response) -> tuple[object, ...]:
    return (
        response.status,
        bytes(response.body),
        response.phrase,
        response.content_type,
        list(response.headers),
        response.error,
    )


@given(NUMBERED_REQUESTS)
def test_requests_arrive_as_they_were_sent(numbered: list[tuple[int, Request]]) -> None:
    frames = read_all(send(numbered))
    arrived = [pair for frame in frames for pair in decode_requests(frame.payload)]
    assert [(number, plain(request)) for number, request in arrived] == [
        (number, plain(request)) for number, request in numbered
    ]


def test_a_phrase_and_a_content_type_may_be_long() -> None:
    reply = Response(200, b"", phrase="p" * 70_000, content_type="c" * 70_000)
    (frame,) = read_all(list(encode_replies([Batch([1], [reply], 0.0, 0.0)])))
    (batch,) = decode_replies(frame.payload)
    assert plain_response(batch.responses[0]) == plain_response(reply)


@given(BATCHES)
def test_replies_arrive_as_they_were_sent(batches: list[Batch]) -> None:
    frames = read_all(list(encode_replies(batches)))
    arrived = [batch for frame in frames for batch in decode_replies(frame.payload)]
    assert [
        (
            list(batch.numbers),
            list(map(plain_response, batch.responses)),
            batch.started,
            batch.seconds,
        )
        for batch in arrived
    ] == [
        (
            list(batch.numbers),
            list(map(plain_response, batch.responses)),
            batch.started,
            batch.seconds,
        )
        for batch in batches
    ]


@given(st.lists(st.binary(max_size=40), max_size=4), st.data())
def test_a_stream_may_be_cut_anywhere(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(encode_frame(Kind.SAMPLES, [payload]) for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    bounds = [0, *cuts, len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(bounds)]
    assert [bytes(frame.payload) for frame in read_all(chunks)] == payloads


@given(NUMBERED_REQUESTS.filter(bool), st.data())
def test_a_cut_request_is_an_error(
    numbered: list[tuple[int, Request]], data: st.DataObject
) -> None:
    (frame,) = read_all(send(numbered))
    cut = data.draw(st.integers(0, len(frame.payload) - 1))
    with pytest.raises(ChannelError):
        decode_requests(frame.payload[:cut])


@given(st.binary(max_size=200))
def test_noise_instead_of_requests_is_an_error_or_nothing(noise: bytes) -> None:
    try:
        decode_requests(memoryview(noise))
    except ChannelError:
        return


@given(st.binary(max_size=200))
def test_noise_instead_of_replies_is_an_error_or_nothing(noise: bytes) -> None:
    try:
        list(decode_replies(memoryview(noise)))
    except ChannelError:
        return


@given(st.integers(0, 5), st.integers(1, 255))
def test_a_corrupt_head_is_seen_before_its_length_is_waited_for(index: int, flip: int) -> None:
    frame = bytearray(encode_frame(Kind.STOP, [b"x" * 10]))
    frame[index] ^= flip
    with pytest.raises(ChannelError, match="head is corrupt"):
        FrameReader().feed(bytes(frame))


def test_trailing_bytes_are_an_error() -> None:
    (frame,) = read_all(send([(1, Request("a", (), []))]))
    with pytest.raises(ChannelError, match="another length"):
        decode_requests(memoryview(bytes(frame.payload) + b"x"))


def test_bodies_are_not_copied() -> None:
    (data,) = send([(1, Request("a", (), [Part("body", "", b"0123456789")]))])
    (frame,) = FrameReader().feed(data)
    ((_, request),) = decode_requests(frame.payload)
    body = request.parts[0].data
    assert isinstance(body, memoryview)
    assert body.obj is data


def test_large_requests_travel_in_frames_of_their_own() -> None:
    large = Request("a", (), [Part("body", "", bytes(1 << 18))])
    assert len(send([(1, large), (2, large)])) == 2


def test_replies_of_a_batch_stay_together() -> None:
    large = Response(200, bytes(1 << 18))
    assert len(list(encode_replies([Batch([1, 2], [large, large], 0, 0)]))) == 1


def test_a_path_that_is_too_long_is_called_so() -> None:
    with pytest.raises(ChannelError, match="the path behind the model is over 65535 bytes long"):
        pack_request(1, Request("a", (), [], "p" * (1 << 16)))


@pytest.mark.parametrize(
    "request_",
    [Request("a" * (1 << 16), (), []), Request("a", [("x", "\0")], [])],
    ids=["long id", "zero byte"],
)
def test_what_cannot_be_sent_is_refused(request_: Request) -> None:
    with pytest.raises(ChannelError, match="cannot be sent"):
        pack_request(1, request_)


def test_views_of_wider_items_are_measured_in_bytes() -> None:
    wide = memoryview(struct.pack("3i", 1, 2, 3)).cast("i")
    (frame,) = read_all(list(encode_replies([Batch([1], [Response(200, wide)], 0, 0)])))
    (batch,) = decode_replies(frame.payload)
    assert bytes(batch.responses[0].body) == bytes(wide)


def test_json_frames() -> None:
    (frame,) = read_all([encode_json(Kind.LOAD, {"a": [1, None]})])
    assert frame.kind is Kind.LOAD
    assert decode_json(frame.payload) == {"a": [1, None]}


def test_json_that_is_none_is_an_error() -> None:
    with pytest.raises(ChannelError, match="not JSON"):
        decode_json(b"{")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_receive_fills_a_large_frame_in_place(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    payload = bytes(range(256)) * 400
    frame = encode_frame(Kind.PREDICT, [payload])
    left.sendall(frame[:100])
    reader = FrameReader()
    assert receive(right, reader) == []
    left.sendall(frame[100:])
    frames: list[Frame] = []
    while not frames:
        frames = receive(right, reader)
    assert bytes(frames[0].payload) == payload


def test_receive_tells_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    left.close()
    with pytest.raises(EOFError):
        receive(right, FrameReader())


def test_receive_tells_an_end_inside_a_frame(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    left.sendall(encode_frame(Kind.PREDICT, [b"xyz"])[:-1])
    left.close()
    reader = FrameReader()
    assert receive(right, reader) == []
    with pytest.raises(ChannelError, match="inside a frame"):
        receive(right, reader)


class TestHeaderBlock:
    @given(HEADERS)
    def test_round_trip(self, pairs: list[tuple[str, str]]) -> None:
        block = HeaderBlock.of(pairs)
        assert list(HeaderBlock(block.blob)) == pairs
        assert len(block) == len(pairs)
        assert block == pairs
        assert hash(block) == hash(HeaderBlock(block.blob))

    def test_a_block_is_its_own_block(self) -> None:
        block = HeaderBlock.of([("A", "b")])
        assert HeaderBlock.of(block) is block

    def test_raw_headers_are_latin_1(self) -> None:
        assert list(HeaderBlock.from_raw([(b"X-Name", b"caf\xe9")])) == [("X-Name", "café")]

    def test_no_raw_headers(self) -> None:
        assert list(HeaderBlock.from_raw([])) == []

    def test_zero_bytes_are_refused(self) -> None:
        with pytest.raises(ValueError, match="zero byte"):
            HeaderBlock.of([("a", "b\0c")])
        with pytest.raises(ValueError, match="zero byte"):
            HeaderBlock.from_raw([(b"a", b"b\0c")])

    def test_it_reads_as_pairs(self) -> None:
        block = HeaderBlock.of([("A", "b"), ("C", "d")])
        assert block[1] == ("C", "d")
        assert block[:1] == (("A", "b"),)
        assert repr(block) == "HeaderBlock.of([('A', 'b'), ('C', 'd')])"
        assert block != 3
