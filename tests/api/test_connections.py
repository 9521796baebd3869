"""Connections over time: idle ones, slow readers, requests in any pieces."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hatch_mar.api.app import create_app
from hatch_mar.api.lane import Lane
from hatch_mar.api.listeners import Address, BoundSocket, Listener, bind
from hatch_mar.serve import Service
from tests.support.wire import connect, order, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.runner import Runner

MB = 1_000_000


@asynccontextmanager
async def listening(idle_timeout: float) -> AsyncIterator[tuple[BoundSocket, Listener]]:
    """Serve no model at all in this process, patient for `idle_timeout` seconds."""
    bound = bind(Address(purposes=("inference",), host="127.0.0.1", port=0, flag="--port"))
    service = Service()
    lane = Lane(service=service, idle_timeout=idle_timeout)
    listener = Listener(bound, create_app(service), lane)
    await listener.open()
    try:
        yield bound, listener
    finally:
        await listener.close(timeout=0)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"POST /predictions/x HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", b"HTTP/1.1 408 "),
        (
            b"POST /v1/models/x:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na",
            b"HTTP",
        ),
        (b"POST /nowhere HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", b"HTTP/1.1 404 "),
    ],
)
def test_a_body_that_does_not_come(said: bytes, answer: bytes) -> None:
    async def scenario() -> bytes:
        async with listening(0.3) as (bound, _):
            host, port = bound.socket.getsockname()
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(said)
            everything = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            await writer.wait_closed()
            return everything

    assert asyncio.run(scenario()).startswith(answer)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /predictions/x HTTP/1.1\r\nHost: ",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /li",
    ],
)
def test_idle_connection_is_closed(said: bytes) -> None:
    async def scenario() -> bytes:
        async with listening(0.3) as (bound, _):
            host, port = bound.socket.getsockname()
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(said)
            everything = await reader.read()
            writer.close()
            await writer.wait_closed()
            return everything

    answered = b"alive" if b"\r\n\r\n" in said else b""
    assert answered in asyncio.run(scenario())


def test_a_request_on_its_way_when_the_server_stops_is_answered() -> None:
    """A reset would be the answer to what was sent a moment before the connection was closed."""

    async def scenario() -> tuple[bytes, bytes]:
        async with listening(60) as (bound, listener):
            reader, writer = await asyncio.open_connection(*bound.socket.getsockname())
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            first = await reader.readuntil(b"}\n")
            bystander, other = await asyncio.open_connection(*bound.socket.getsockname())
            other.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            await bystander.readuntil(b"}\n")
            async with asyncio.TaskGroup() as group:
                group.create_task(listener.close(timeout=30))
                await asyncio.sleep(0)
                writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                second = await reader.read()
                assert await bystander.read() == b""
            for one in (writer, other):
                one.close()
                await one.wait_closed()
            return first, second

    first, second = asyncio.run(scenario())
    assert b'"alive"' in first
    assert b'"alive"' in second


@pytest.mark.parametrize(
    "flood",
    [
        b"GET /predictions/odd/" + b"a" * MB,
        b"GET /livez HTTP/1.1\r\n" + b"Name: value\r\n" * 100_000,
        b"GET /livez HTTP/1.1\r\nName: " + b"a" * MB,
    ],
    ids=["url", "names", "value"],
)
def test_a_head_without_end_is_refused(server: Runner, flood: bytes) -> None:
    with connect(server.url) as wire:
        wire.send(order("a") + flood)
        assert wire.read().body == b"a"
        answer = wire.read()
        assert answer.status == 431
        assert json.loads(answer.body)["type"] == "BadRequestException"
        assert wire.at_end()


def test_slow_reader_gets_everything(server: Runner) -> None:
    count = 30
    with connect(server.url) as wire:
        wire.send(b"".join(order(chr(65 + number), times=MB) for number in range(count)))
        # Nothing is read until the last is sent: the server has to hold back, and to go on.
        for number in range(count):
            assert wire.read().body == bytes([65 + number]) * MB


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    requests=st.lists(st.sampled_from(["lane", "asgi", "chunked"]), min_size=1, max_size=8),
    cuts=st.lists(st.integers(1, 300), max_size=30),
)
def test_any_requests_in_any_pieces(server: Runner, requests: list[str], cuts: list[int]) -> None:
    stream, expected = b"", []
    for number, kind in enumerate(requests):
        text = f"{kind} {number}"
        body = json.dumps({"text": text}).encode()
        headers = {"Content-Type": "application/json"}
        if kind == "lane":
            stream += order(text)
        elif kind == "asgi":
            stream += request("POST", "/odd/predict", body, headers)
        else:
            head = request("POST", "/predictions/odd", b"", headers)
            head = head.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
            stream += head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
        expected.append(text.encode())
    with connect(server.url) as wire:
        for cut in cuts:
            wire.send(stream[:cut])
            stream = stream[cut:]
        wire.send(stream)
        assert [wire.read().body for _ in expected] == expected


def test_last_request_of_a_connection_through_asgi(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(request("GET", "/livez", headers={"Connection": "close"}))
        answer = wire.read()
        assert answer.head.count(b"connection: ") == 1
        assert answer.headers["connection"] == "close"
        assert wire.at_end()


def test_answers_do_not_wait_for_acknowledgements() -> None:
    async def scenario() -> int:
        async with listening(5) as (bound, listener):
            reader, writer = await asyncio.open_connection(*bound.socket.getsockname())
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readline()
            (connection,) = listener._server.server_state.connections
            theirs = connection.transport.get_extra_info("socket")
            no_delay = theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            await writer.wait_closed()
            return int(no_delay)

    assert asyncio.run(scenario()) != 0
