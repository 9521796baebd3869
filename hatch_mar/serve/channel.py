"""Requests and replies as bytes, many to a frame.

Bodies are decoded as views of the frame they came in, which nobody writes to again; header blocks
travel as one piece and are taken apart by whoever looks at them.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from hatch_mar.model.protocol import Part, Request, Response
from hatch_mar.serve.frames import Buffer, ChannelError, Kind, encode_frame
from hatch_mar.serve.headers import HeaderBlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")
SOFT_LIMIT = 1 << 18
"""A frame that has grown to so many bytes is closed: the worker may begin with what is in it."""
_COUNT = struct.Struct("<I")
_REQUEST = struct.Struct("<IBHHII")
"""Number, flags, and the lengths of: id, URL path, parts (a count), header block."""
_PART = struct.Struct("<IIQ")
"""Lengths of: name, content type, data."""
_BATCH = struct.Struct("<Idd")
"""How many replies, begun when (monotonic clock), for how many seconds."""
_REPLY = struct.Struct("<IHBIIIQ")
"""Number, status, flags, and the lengths of: phrase, content type, header block, body."""
_SMALL = 1 << 16
_LONGEST_PATH = 0xFFFF
_SMALL = 4096
"""Bytes of data that are better copied at once than carried along on their own."""
_EXPLAIN, _DESCRIBE, _NO_EXPLAIN, _NO_PATH = 1, 2, 4, 8
_ERROR, _HAS_CONTENT_TYPE = 1, 2


class Cover:
    """What requests with one head, and one part of one size, have in common when they travel."""

    __slots__ = ("data", "flags", "headers", "path", "request", "size", "what")

    def __init__(self, request: Request, part: Part, headers: HeaderBlock) -> None:
        """Pack what requests like `request` will share."""
        path = _encode_path(request)
        self.request = request.url_path, request.explain, request.describe
        self.what = part.name, part.content_type
        self.size = _size(part.data)
        self.flags = _flags(request)
        self.headers = len(headers.blob)
        self.path = len(path)
        self.data = b"".join((path, headers.blob, _pack_name(part)))
        """What comes between a request's id and the data of its part."""

    def fits(self, request: Request, part: Part) -> bool:
        """Tell whether another request, with the same headers, differs in its id and data only."""
        return (
            self.what == (part.name, part.content_type)
            and self.request == (request.url_path, request.explain, request.describe)
            and self.size == _size(part.data)
        )


class Batch(NamedTuple):
    """What a worker made of one batch."""

    numbers: Sequence[int]
    """The numbers of the requests, as they were sent."""
    responses: Sequence[Response]
    started: float
    """When the batch was begun: `time.monotonic()`, one clock for all processes of a machine."""
    seconds: float


def pack_request(number: int, request: Request) -> list[Buffer]:
    """Make ready to send one request; its bodies are not copied.

    Raises:
        ChannelError: something in it cannot be sent: a zero byte in a header, an id of 64 KiB.
    """
    parts, headers = request.parts, request.headers
    try:
        if len(parts) != 1:
            return _pack_form(number, request)
        part = parts[0]
        data = part.data
        cover = headers.cover if isinstance(headers, HeaderBlock) else None
        if cover is None or not cover.fits(request, part):
            cover = _make_cover(request, part)
        ident = request.id.encode("utf-8", "surrogatepass")
        head = _REQUEST.pack(number, cover.flags, len(ident), cover.path, 1, cover.headers)
    except (struct.error, ValueError) as error:
        raise ChannelError(f"a request cannot be sent: {error}") from error
    if cover.size > _SMALL:
        return [head + ident + cover.data, data]
    return [b"".join((head, ident, cover.data, data))]


def read_request_id(packed: Sequence[Buffer]) -> str:
    """Return the id of a request that `pack_request` has made ready."""
    head = memoryview(packed[0])
    size = _REQUEST.unpack_from(head)[2]
    return str(head[_REQUEST.size : _REQUEST.size + size], "utf-8", "replace")


def encode_requests(packed: Iterable[list[Buffer]]) -> Iterator[bytes]:
    """Join packed requests into PREDICT frames: one, unless they are large."""
    pieces: list[Buffer] = [b""]
    count = size = 0
    for request in packed:
        count += 1
        for piece in request:
            pieces.append(piece)
            size += len(piece)
        if size >= SOFT_LIMIT:
            pieces[0] = _COUNT.pack(count)
            yield encode_frame(Kind.PREDICT, pieces)
            pieces, count, size = [b""], 0, 0
    if count:
        pieces[0] = _COUNT.pack(count)
        yield encode_frame(Kind.PREDICT, pieces)


def decode_requests(payload: memoryview) -> list[tuple[int, Request]]:
    """Unpack a PREDICT frame. Bodies are views of `payload`.

    Raises:
        ChannelError: the payload is not what `encode_requests` makes.
    """
    known: dict[bytes, HeaderBlock] = {}
    # What is small is copied as a whole: Python is quicker with pieces of bytes than of views.
    text = bytes(payload) if len(payload) < _SMALL else payload
    return _decode_numbered(payload, partial(_unpack_request, known, text), "request")


def encode_replies(batches: Iterable[Batch]) -> Iterator[bytes]:
    """Pack batches into REPLIES frames: one, unless they are large. A batch stays whole."""
    pieces: list[Buffer] = []
    size = 0
    for numbers, responses, started, seconds in batches:
        pieces.append(_BATCH.pack(len(numbers), started, seconds))
        for number, response in zip(numbers, responses, strict=True):
            size += _pack_reply(number, response, pieces)
        if size >= SOFT_LIMIT:
            yield encode_frame(Kind.REPLIES, pieces)
            pieces, size = [], 0
    if pieces:
        yield encode_frame(Kind.REPLIES, pieces)


def decode_replies(payload: memoryview) -> Iterator[Batch]:
    """Unpack a REPLIES frame. Bodies are views of `payload`.

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
                    number, response, position = _unpack_reply(payload, position)
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
    return _decode_numbered(payload, _unpack_reply, "piece")


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


def _make_cover(request: Request, part: Part) -> Cover:
    headers = HeaderBlock.of(request.headers)
    headers.cover = cover = Cover(request, part, headers)
    return cover


def _pack_form(number: int, request: Request) -> list[Buffer]:
    """Pack a request that has another number of parts than one."""
    ident, path = _encode(request.id), _encode_path(request)
    headers, parts = HeaderBlock.of(request.headers).blob, request.parts
    sizes = len(ident), len(path), len(parts), len(headers)
    pieces: list[Buffer] = [_REQUEST.pack(number, _flags(request), *sizes) + ident + path + headers]
    for part in parts:
        pieces += (_pack_name(part), part.data)
    return pieces


def _encode_path(request: Request) -> bytes:
    path = _encode(request.url_path or "")
    if len(path) > _LONGEST_PATH:
        raise ChannelError(f"the path behind the model is over {_LONGEST_PATH} bytes long")
    return path


def _flags(request: Request) -> int:
    explain, url_path = request.explain, request.url_path
    flags = _NO_EXPLAIN if explain is None else explain and _EXPLAIN
    return flags | (request.describe and _DESCRIBE) | (url_path is None and _NO_PATH)


def _pack_name(part: Part) -> bytes:
    """Pack all of a part but its data."""
    name, content_type = _encode(part.name), _encode(part.content_type)
    return _PART.pack(len(name), len(content_type), _size(part.data)) + name + content_type


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decode(view: memoryview) -> str:
    return str(view, "utf-8", "surrogatepass")


def _size(data: Buffer) -> int:
    return data.nbytes if isinstance(data, memoryview) else len(data)


def _unpack_request(
    known: dict[bytes, HeaderBlock], text: Buffer, payload: memoryview, position: int
) -> tuple[int, Request, int]:
    """Unpack one request of `payload`, whose bytes are in `text`, too.

    `known` are the header blocks of the requests before it in the frame.
    """
    number, flags, ident, path, count, headers = _REQUEST.unpack_from(text, position)
    ident += (start := position + _REQUEST.size)
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
        None if flags & _NO_PATH else _decode(payload[ident:path]) if path > ident else "",
        None if flags & _NO_EXPLAIN else bool(flags & _EXPLAIN),
        bool(flags & _DESCRIBE),
    )
    for _ in range(count):
        name, content_type, length = _PART.unpack_from(text, position)
        name += (start := position + _PART.size)
        content_type += name
        position = content_type + length
        parts.append(
            Part(
                str(text[start:name], "utf-8", "surrogatepass"),
                str(text[name:content_type], "utf-8", "surrogatepass"),
                payload[content_type:position],
            )
        )
    return number, request, position


def _pack_reply(number: int, response: Response, pieces: list[Buffer]) -> int:
    """Append one reply to `pieces`; return the size of its body."""
    body, kind = response.body, response.content_type
    length = _size(body)
    if kind is None and not (response.phrase or response.headers or response.error):
        pieces += _REPLY.pack(number, response.status, 0, 0, 0, 0, length), body
        return length
    phrase = _encode(response.phrase) if response.phrase else b""
    content_type = _encode(kind) if kind else b""
    headers = HeaderBlock.of(response.headers).blob if response.headers else b""
    flags = (response.error and _ERROR) | (0 if kind is None else _HAS_CONTENT_TYPE)
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


def _unpack_reply(payload: memoryview, position: int) -> tuple[int, Response, int]:
    number, status, flags, phrase, content_type, headers, length = _REPLY.unpack_from(
        payload, position
    )
    start = position + _REPLY.size
    if not (flags or phrase or headers):
        end = start + length
        return number, Response(status, payload[start:end]), end
    phrase += start
    content_type += phrase
    headers += content_type
    end = headers + length
    response = Response(
        status,
        payload[headers:end],
        _decode(payload[start:phrase]),
        _decode(payload[phrase:content_type]) if flags & _HAS_CONTENT_TYPE else None,
        HeaderBlock(bytes(payload[content_type:headers])) if headers > content_type else (),
        bool(flags & _ERROR),
    )
    return number, response, end
