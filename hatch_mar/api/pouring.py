"""Answers on their way into a transport, no faster than the client reads."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from hatch_mar.serve.shared import SharedMemory, send_tail

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.flow_control import FlowControl

    from hatch_mar.api.exchange import Exchange

_AT_ONCE = 1 << 18
"""Bytes of a large answer that are handed over at once: the transport copies what the socket has no
room for."""


def pour(exchange: Exchange, transport: asyncio.Transport, flow: FlowControl) -> bool:
    """Write the output of `exchange`; tell if that was all.

    If not, `flow` is paused: what is left is the output then, to be poured when it goes on.
    """
    for place, piece in enumerate(exchange.output):
        if len(piece) <= _AT_ONCE:
            transport.write(piece)
            continue
        rest = memoryview(piece)
        while rest := _send_past(transport, rest):
            if flow.write_paused:
                exchange.output = (rest, *exchange.output[place + 1 :])
                return False
            if transport.is_closing():
                return True  # the client went away while we wrote: asyncio warns of every piece
            transport.write(rest[:_AT_ONCE])
            rest = rest[_AT_ONCE:]
    return True


def _send_past(transport: asyncio.Transport, rest: memoryview) -> memoryview:
    """Send what fits of shared memory, past a transport that holds nothing back; return the rest.

    The transport would map it, and copy it twice. With TLS there is no way past it.
    """
    if (
        isinstance(rest.obj, SharedMemory)
        and not transport.get_write_buffer_size()
        and transport.get_extra_info("sslcontext") is None
    ):
        sock = transport.get_extra_info("socket").fileno()
        with suppress(OSError):  # there is no room, or nobody: the transport finds out
            while count := send_tail(sock, rest):
                rest = rest[count:]
    return rest
