"""Answers on their way into a transport, no faster than the client reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        while rest:
            if flow.write_paused:
                exchange.output = (rest, *exchange.output[place + 1 :])
                return False
            if transport.is_closing():
                return True  # the client went away while we wrote: asyncio warns of every piece
            transport.write(rest[:_AT_ONCE])
            rest = rest[_AT_ONCE:]
    return True
