"""One request, made ready to travel to a worker while it waits for its turn."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hatch_mar.serve.frames import Buffer, ChannelError
from hatch_mar.serve.headers import HeaderBlock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.protocol import Part, Request

REQUEST = struct.Struct("<IBHHII")
"""Number, flags, and the lengths of: id, URL path, parts (a count), header block."""
PART = struct.Struct("<IIQ")
"""Lengths of: name, content type, data."""
EXPLAIN, DESCRIBE, NO_EXPLAIN, NO_PATH, SHARED = 1, 2, 4, 8, 16
"""Flags; with the last one the data of the only part is in shared memory."""
FLAGS_AT = 4
"""Where in a packed request the flags are."""
_LONGEST_PATH = 0xFFFF
_JOINED = 4096
"""Bytes of data that are better copied at once than carried along on their own."""


class Cover:
    """What requests with one head, and one part of one size, have in common when they travel."""

    __slots__ = ("data", "flags", "headers", "path", "request", "size", "what")

    def __init__(self, request: Request, part: Part, headers: HeaderBlock) -> None:
        """Pack what requests like `request` will share."""
        path = _encode_path(request)
        self.request = request.url_path, request.explain, request.describe
        self.what = part.name, part.content_type
        self.size = size_of(part.data)
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
            and self.size == size_of(part.data)
        )


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
        head = REQUEST.pack(number, cover.flags, len(ident), cover.path, 1, cover.headers)
    except (struct.error, ValueError) as error:
        raise ChannelError(f"a request cannot be sent: {error}") from error
    if cover.size > _JOINED:
        return [head + ident + cover.data, data]
    return [b"".join((head, ident, cover.data, data))]


def read_request_id(packed: Sequence[Buffer]) -> str:
    """Return the id of a request that `pack_request` has made ready."""
    head = memoryview(packed[0])
    size = REQUEST.unpack_from(head)[2]
    return str(head[REQUEST.size : REQUEST.size + size], "utf-8", "replace")


def _make_cover(request: Request, part: Part) -> Cover:
    headers = HeaderBlock.of(request.headers)
    headers.cover = cover = Cover(request, part, headers)
    return cover


def _pack_form(number: int, request: Request) -> list[Buffer]:
    """Pack a request that has another number of parts than one."""
    ident, path = encode_text(request.id), _encode_path(request)
    headers, parts = HeaderBlock.of(request.headers).blob, request.parts
    sizes = len(ident), len(path), len(parts), len(headers)
    pieces: list[Buffer] = [REQUEST.pack(number, _flags(request), *sizes) + ident + path + headers]
    for part in parts:
        pieces += (_pack_name(part), part.data)
    return pieces


def _encode_path(request: Request) -> bytes:
    path = encode_text(request.url_path or "")
    if len(path) > _LONGEST_PATH:
        raise ChannelError(f"the path behind the model is over {_LONGEST_PATH} bytes long")
    return path


def _flags(request: Request) -> int:
    explain, url_path = request.explain, request.url_path
    flags = NO_EXPLAIN if explain is None else explain and EXPLAIN
    return flags | (request.describe and DESCRIBE) | (url_path is None and NO_PATH)


def _pack_name(part: Part) -> bytes:
    """Pack all of a part but its data."""
    name, content_type = encode_text(part.name), encode_text(part.content_type)
    return PART.pack(len(name), len(content_type), size_of(part.data)) + name + content_type


def encode_text(text: str) -> bytes:
    """Encode `text` as it travels: lone surrogates, which JSON may hold, are kept."""
    return text.encode("utf-8", "surrogatepass")


def size_of(data: Buffer) -> int:
    """Count the bytes of `data`."""
    return data.nbytes if isinstance(data, memoryview) else len(data)
