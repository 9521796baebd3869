"""Streams on the wire: how they are framed, how they break, and who may hold them up."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from hatch_mar.api.app import create_app
from hatch_mar.api.cors import Cors
from hatch_mar.archive.read import open_archive
from hatch_mar.serve import Service, make_root, prepare, remove_rundirs
from hatch_mar.weights.cache import Cache
from tests.support.archives import write_mar
from tests.support.runner import Runner, start_runner
from tests.support.wire import connect, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HANDLER = """
    import os
    from pathlib import Path
    from ts.handler_utils.utils import send_intermediate_predict_response as send

    def handle(data, context):
        if data is None:
            return
        order = data[0]["body"] or {}
        for name, value in order.get("headers", {}).items():
            context.set_response_header(0, name, value)
        for number in range(order.get("pieces", 2)):
            if "trace" in order:
                Path(order["trace"]).write_text(str(number))
            send([order.get("text", "ab") * order.get("times", 1)], context.request_ids, "", 200,
                 context)
        if order.get("end") == "die":
            os._exit(3)
        if order.get("end") == "fail":
            raise ValueError("no")
        return ["end"]
"""
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mar(tmp_path_factory.mktemp("streams"), "stream", HANDLER)


@pytest.fixture(scope="module")
def server(archive: Path) -> Iterator[Runner]:
    with start_runner(str(archive)) as runner:
        assert runner.exited() is None, runner.output()
        yield runner


def order(*, close: bool = True, version: str = "1.1", **wishes: Any) -> bytes:
    """Return a request for a stream."""
    headers = {**JSON, **({"Connection": "close"} if close else {})}
    sent = request("POST", "/predictions/stream", json.dumps(wishes).encode(), headers)
    return sent.replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1)


def ask(server: Runner, sent: bytes) -> tuple[bytes, bytes]:
    """Return head and body of all that comes until the connection ends."""
    with connect(server.url) as wire:
        wire.send(sent)
        data = b""
        while piece := wire.socket.recv(65536):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def test_a_piece_is_a_chunk(server: Runner) -> None:
    head, body = ask(server, order())
    lines = head.lower().split(b"\r\n")
    assert b"transfer-encoding: chunked" in lines
    assert b"ts_stream_next: true" in lines
    assert not any(line.startswith(b"content-length") for line in lines)
    assert body == b"2\r\nab\r\n2\r\nab\r\n3\r\nend\r\n0\r\n\r\n"


def test_an_http_1_0_client_gets_pieces_as_they_are(server: Runner) -> None:
    head, body = ask(server, order(version="1.0"))
    assert b"transfer-encoding" not in head
    assert body == b"ababend"


@pytest.mark.parametrize("end", ["fail", "die"])
def test_a_stream_that_breaks_has_no_last_chunk(server: Runner, end: str) -> None:
    _, body = ask(server, order(end=end))
    assert body == b"2\r\nab\r\n2\r\nab\r\n"


def test_a_broken_stream_without_chunks_is_reset(server: Runner) -> None:
    with pytest.raises(ConnectionResetError):
        ask(server, order(end="fail", version="1.0"))


def test_a_head_that_a_handler_broke_is_an_error(server: Runner) -> None:
    head, body = ask(server, order(headers={"X": "\u2603"}))
    assert head.startswith(b"HTTP/1.1 500 ")
    assert b"not legal in an HTTP head" in body


def test_head_has_no_chunks(server: Runner) -> None:
    _, body = ask(server, order().replace(b"POST", b"HEAD", 1))
    assert body == b""


def test_streams_of_one_connection_follow_each_other(server: Runner) -> None:
    _, body = ask(server, order(close=False, text="1") + order(text="2"))
    first, _, second = body.partition(b"HTTP/1.1 200")
    assert first == b"1\r\n1\r\n1\r\n1\r\n3\r\nend\r\n0\r\n\r\n"
    assert second.endswith(b"1\r\n2\r\n1\r\n2\r\n3\r\nend\r\n0\r\n\r\n")


def test_an_old_client_behind_a_new_one_is_sent_no_chunks(server: Runner) -> None:
    """A proxy may send both over one connection, and nothing else differs."""
    head = b"POST /predictions/stream HTTP/%s\r\nConnection: keep-alive\r\n\r\n"
    with connect(server.url) as wire:
        wire.send(head % b"1.1" + head % b"1.0")
        data = b""
        while piece := wire.socket.recv(65536):
            data += piece
    assert data.endswith(b"connection: close\r\n\r\nababend"), data


def test_a_client_that_is_slow_holds_its_worker(server: Runner, tmp_path: Path) -> None:
    trace, count = tmp_path / "trace", 60
    wishes: dict[str, Any] = {"pieces": count, "times": 250_000, "trace": str(trace)}
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = httpx.URL(server.url)
        slow.connect((address.host, address.port))
        slow.sendall(order(**wishes))
        data = slow.recv(10)
        stood = ""
        while stood != (stood := trace.read_text(encoding="utf-8")) or not stood:
            # The worker has stopped once half a second changes nothing.
            asyncio.run(asyncio.sleep(0.5))
        assert int(stood) < count - 1
        size = len(data)
        while piece := slow.recv(1 << 20):
            size += len(piece)
    assert size > count * 500_000


def test_behind_another_server(archive: Path) -> None:
    """ASGI: the pieces come one by one, and a stream that breaks is not completed."""

    async def play() -> None:
        root = make_root()
        service = Service()
        try:
            with open_archive(archive) as opened:
                await service.register(prepare(opened, root=root, cache=Cache()))
            app = create_app(service, cors=Cors(origin="*"))
            assert await send(app, {"text": "ab"}) == (b"ababend", True)
            assert await send(app, {"text": "ab", "end": "fail"}) == (b"abab", False)
        finally:
            await service.close(timeout=5)
            remove_rundirs(root)

    asyncio.run(play())


async def send(app: Any, wishes: dict[str, Any]) -> tuple[bytes, bool]:
    """Return the body that an ASGI application sends, and whether it is complete."""
    body, more = b"", True
    asked = False
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await gone.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": json.dumps(wishes).encode(), "more_body": False}

    async def take(message: dict[str, Any]) -> None:
        nonlocal body, more
        if message["type"] == "http.response.start":
            assert (b"access-control-allow-origin", b"*") in message["headers"]
            assert not any(name == b"content-length" for name, _ in message["headers"])
        else:
            body += message["body"]
            more = message.get("more_body", False)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predictions/stream",
        "raw_path": b"/predictions/stream",
        "query_string": b"",
        "http_version": "1.1",
        "headers": [(b"content-type", b"application/json")],
    }
    await app(scope, receive, take)
    return body, not more
