"""Answers are written no faster than they are read, and no longer than somebody is there."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl

from hatch_mar.api.exchange import Exchange, Head, House
from hatch_mar.api.pouring import pour
from hatch_mar.api.targets import Target

LARGE = bytes(10_000_000)


class Nowhere:
    """A connection that never asks."""

    house = House()

    def send_ready(self, exchange: Exchange) -> None:
        """Do nothing."""


class Leaky(asyncio.Transport):
    """Takes so many pieces, and is lost then."""

    def __init__(self, pieces: int) -> None:
        """Take nothing yet."""
        super().__init__()
        self.left = pieces
        self.taken = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert self.left > 0, "written to nobody"
        self.left -= 1
        self.taken += len(data)

    def is_closing(self) -> bool:
        return not self.left


def make_exchange() -> Exchange:
    head = Head(b"POST", b"/", "1.1", [], target=Target(model="m"), client=None)
    exchange = Exchange(head, Nowhere(), keep_alive=True, started=0.0)
    exchange.output = (b"head", LARGE)
    return exchange


def test_nothing_is_written_to_a_client_that_left_meanwhile() -> None:
    transport = Leaky(3)
    assert pour(make_exchange(), transport, FlowControl(transport))
    assert transport.left == 0


def test_the_rest_waits_for_a_client_that_is_slow() -> None:
    transport = Leaky(1000)
    flow, exchange = FlowControl(transport), make_exchange()
    flow.pause_writing()
    assert not pour(exchange, transport, flow)
    assert transport.taken == len(b"head")
    flow.resume_writing()
    assert pour(exchange, transport, flow)
    assert transport.taken == len(b"head") + len(LARGE)
