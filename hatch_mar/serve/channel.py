"""Requests and replies as bytes, many to a frame.

Bodies are decoded as views of the frame they came in, which nobody writes to again; header blocks
travel as one piece and are taken apart by whoever looks at them.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

from hatch_mar.model.protocol import Part, Request, Response
from hatch_mar.serve.frames import Buffer, ChannelError, Kind, encode_frame
from hatch_mar.serve.headers import HeaderBlock
from hatch_mar.serve.packing import (
    DESCRIBE,
    EXPLAIN,
    FLAGS_AT,
    NO_EXPLAIN,
    NO_PATH,
    PART,
    REQUEST,
    SHARED,
    encode_text,
    size_of,
)
from hatch_mar.serve.shared import MOST_AT_ONCE, SHARED_FROM, SharedMemory, find, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    TakeShared = Callable[[int], memoryview]
    """Returns the next shared memory that has come, of so many bytes."""

T = TypeVar("T")
SOFT_LIMIT = 1 << 18
"""A frame that has grown to so many bytes is closed: the worker may begin with what is in it."""
_COUNT = struct.Struct("<I")
_BATCH = struct.Struct("<Idd")
"""How many replies, begun when (monotonic clock), for how many seconds."""
_REPLY = struct.Struct("<IHBIIIQ")
"""Number, status, flags, and the lengths of: phrase, content type, header block, body."""
_WITH_BODY = 2
"""Pieces of a packed request whose only part is large: a form has one, or five and more."""
_SMALL = 1 << 16
"""Bytes of a frame that are copied as a whole: Python is quicker with bytes than with views."""
_ERROR, _HAS_CONTENT_TYPE, _SHARED_BODY = 1, 2, 4


class Batch(NamedTuple):
    """What a worker made of one batch."""

    numbers: Sequence[int]
    """The numbers of the requests, as they were sent."""
    responses: Sequence[Response]
    started: float
    """When the batch was begun: `time.monotonic()`, one clock for all processes of a machine."""
    seconds: float


def encode_requests(
    packed: Sequence[list[Buffer]], memories: list[SharedMemory] | None = None
) -> Iterator[bytes]:
    """Join packed requests into one PREDICT frame; large ones go before it, in MORE frames.

    With `memories`, a body that is in shared memory is left out, and its memory appended: what is
    there when a frame is yielded belongs to that frame, and goes with it.
    """
    pieces: list[Buffer] = [b""]
    count = size = 0
    left = len(packed)
    for request in packed:
        memory = find(request[-1]) if memories is not None and len(request) == _WITH_BODY else None
        if memories is not None and memory is not None:
            memories.append(memory)
            head = bytearray(request[0])
            head[FLAGS_AT] |= SHARED
            pieces.append(head)
            size = SOFT_LIMIT
        else:
            pieces += request
            size += sum(map(len, request))
        count += 1
        left -= 1
        if size >= SOFT_LIMIT and left:
            pieces[0] = _COUNT.pack(count)
            yield encode_frame(Kind.MORE, pieces)
            pieces, count, size = [b""], 0, 0
    if count:
        pieces[0] = _COUNT.pack(count)
        yield encode_frame(Kind.PREDICT, pieces)


def refuse_shared(size: int) -> NoReturn:
    """Take no shared memory."""
    raise ChannelError(f"{size} bytes of shared memory are spoken of where none can come")


def decode_requests(
    payload: memoryview, take_shared: TakeShared = refuse_shared
) -> list[tuple[int, Request]]:
    """Unpack a PREDICT or MORE frame; bodies are views of it, or of what `take_shared` returns.

    Raises:
        ChannelError: the payload is not what `encode_requests` makes.
    """
    known: dict[bytes, HeaderBlock] = {}
    # What is small is copied as a whole: Python is quicker with pieces of bytes than of views.
    text = bytes(payload) if len(payload) < _SMALL else payload
    unpack = partial(_unpack_request, known, take_shared, text)
    return _decode_numbered(payload, unpack, "request")


def encode_replies(
    batches: Iterable[Batch], memories: list[SharedMemory] | None = None
) -> Iterator[bytes]:
    """Pack batches into REPLIES frames: one, unless they are large. A batch stays whole.

    With `memories`, large bodies are left out; see `encode_requests`.
    """
    pieces: list[Buffer] = []
    size = 0
    for numbers, responses, started, seconds in batches:
        pieces.append(_BATCH.pack(len(numbers), started, seconds))
        for number, response in zip(numbers, responses, strict=True):
            size += _pack_reply(number, response, pieces, memories)
        if size >= SOFT_LIMIT:
            yield encode_frame(Kind.REPLIES, pieces)
            pieces, size = [], 0
    if pieces:
        yield encode_frame(Kind.REPLIES, pieces)


def decode_replies(payload: memoryview, take_shared: TakeShared = refuse_shared) -> Iterator[Batch]:
    """Unpack a REPLIES frame. Bodies are views of `payload`, or of what `take_shared` returns.

    Raises:
        ChannelError: the payload is not what `encode_replies` makes.
    """
    position, end = 0, len(payload)
    while position < end:
        try:
            count, started, seconds = _BATCH.unpack_from(payload, position)
            position += _BATCH.size
            numbers, responses = [], []
            for _ in range(count):
                fields = _REPLY.unpack_from(payload, position)
                number, status, flags, phrase, _, headers, size = fields
                if flags or phrase or headers:
                    number, response, position = _unpack_reply(take_shared, payload, position)
                else:
                    start = position + _REPLY.size
                    position = start + size
                    response = Response(status, payload[start:position])
                numbers.append(number)
                responses.append(response)
        except (struct.error, UnicodeDecodeError) as error:
            raise ChannelError(f"a reply is corrupt: {error}") from error
        if position > end:
            raise ChannelError("a frame of replies is shorter than its replies")
        yield Batch(numbers, responses, started, seconds)


def encode_pieces(pieces: Sequence[tuple[int, Response]]) -> bytes:
    """Pack intermediate answers, each with the number of its request, into one PIECES frame."""
    packed: list[Buffer] = [_COUNT.pack(len(pieces))]
    for number, response in pieces:
        _pack_reply(number, response, packed)
    return encode_frame(Kind.PIECES, packed)


def decode_pieces(payload: memoryview) -> list[tuple[int, Response]]:
    """Unpack a PIECES frame. Bodies are views of `payload`.

    Raises:
        ChannelError: the payload is not what `encode_pieces` makes.
    """
    return _decode_numbered(payload, partial(_unpack_reply, refuse_shared), "piece")


def _decode_numbered(
    payload: memoryview, unpack: Callable[[memoryview, int], tuple[int, T, int]], what: str
) -> list[tuple[int, T]]:
    """Unpack a frame of one count and as many things, each with its request's number."""
    try:
        (count,) = _COUNT.unpack_from(payload)
        numbered = []
        position = _COUNT.size
        for _ in range(count):
            number, thing, position = unpack(payload, position)
            numbered.append((number, thing))
    except (struct.error, UnicodeDecodeError) as error:
        raise ChannelError(f"a {what} is corrupt: {error}") from error
    if position != len(payload):
        raise ChannelError(f"a frame of {what}s has another length than its {what}s")
    return numbered


def encode_forgotten(numbers: Sequence[int]) -> bytes:
    """Pack the numbers of requests into one FORGET frame."""
    return encode_frame(Kind.FORGET, (struct.pack(f"<{len(numbers)}I", *numbers),))


def decode_forgotten(payload: memoryview) -> tuple[int, ...]:
    """Unpack a FORGET frame.

    Raises:
        ChannelError: the payload is not what `encode_forgotten` makes.
    """
    if len(payload) % _COUNT.size:
        raise ChannelError("a frame of numbers ends inside a number")
    return struct.unpack(f"<{len(payload) // _COUNT.size}I", payload)


def _decode(view: memoryview) -> str:
    return str(view, "utf-8", "surrogatepass")


def _unpack_request(
    known: dict[bytes, HeaderBlock],
    take_shared: TakeShared,
    text: Buffer,
    payload: memoryview,
    position: int,
) -> tuple[int, Request, int]:
    """Unpack one request of `payload`, whose bytes are in `text`, too.

    `known` are the header blocks of the requests before it in the frame.
    """
    number, flags, ident, path, count, headers = REQUEST.unpack_from(text, position)
    ident += (start := position + REQUEST.size)
    path += ident
    position = headers + path
    parts: list[Part] = []
    blob = bytes(text[path:position])
    block = known.get(blob)
    if block is None:  # most clients say the same as the one before: it is taken apart once
        block = known[blob] = HeaderBlock(blob)
    request = Request(
        str(text[start:ident], "utf-8", "surrogatepass"),
        block,
        parts,
        None if flags & NO_PATH else _decode(payload[ident:path]) if path > ident else "",
        None if flags & NO_EXPLAIN else bool(flags & EXPLAIN),
        bool(flags & DESCRIBE),
    )
    for _ in range(count):
        name, content_type, length = PART.unpack_from(text, position)
        name += (start := position + PART.size)
        content_type += name
        if flags & SHARED:
            position, data = content_type, take_shared(length)
        else:
            position = content_type + length
            data = payload[content_type:position]
        media_type = str(text[name:content_type], "utf-8", "surrogatepass")
        parts.append(Part(str(text[start:name], "utf-8", "surrogatepass"), media_type, data))
    return number, request, position


def _pack_reply(
    number: int,
    response: Response,
    pieces: list[Buffer],
    memories: list[SharedMemory] | None = None,
) -> int:
    """Append one reply to `pieces`, or its body to `memories`; return the size of its body."""
    body, kind = response.body, response.content_type
    length, memory = size_of(body), None
    if length >= SHARED_FROM and memories is not None and len(memories) < MOST_AT_ONCE:
        memory = share(body)
        if memory is not None:
            memories.append(memory)
            body = b""
    if (
        memory is None
        and kind is None
        and not (response.phrase or response.headers or response.error)
    ):
        pieces += _REPLY.pack(number, response.status, 0, 0, 0, 0, length), body
        return length
    phrase = encode_text(response.phrase) if response.phrase else b""
    content_type = encode_text(kind) if kind else b""
    headers = HeaderBlock.of(response.headers).blob if response.headers else b""
    flags = (response.error and _ERROR) | (0 if kind is None else _HAS_CONTENT_TYPE)
    flags |= 0 if memory is None else _SHARED_BODY
    pieces += (
        _REPLY.pack(
            number, response.status, flags, len(phrase), len(content_type), len(headers), length
        ),
        phrase,
        content_type,
        headers,
        body,
    )
    return length


def _unpack_reply(
    take_shared: TakeShared, payload: memoryview, position: int
) -> tuple[int, Response, int]:
    number, status, flags, phrase, content_type, headers, length = _REPLY.unpack_from(
        payload, position
    )
    start = position + _REPLY.size
    phrase += start
    content_type += phrase
    headers += content_type
    end = headers if flags & _SHARED_BODY else headers + length
    response = Response(
        status,
        take_shared(length) if flags & _SHARED_BODY else payload[headers:end],
        _decode(payload[start:phrase]),
        _decode(payload[phrase:content_type]) if flags & _HAS_CONTENT_TYPE else None,
        HeaderBlock(bytes(payload[content_type:headers])) if headers > content_type else (),
        bool(flags & _ERROR),
    )
    return number, response, end
