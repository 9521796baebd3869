"""Requests that repeat the last one are what the parser would have made of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from hatch_mar.api.exchange import Head
from hatch_mar.api.repeat import RepeatProtocol, find_repeat
from hatch_mar.api.targets import Target
from tests.support.wire import connect, order, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.runner import Runner


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """Serve nobody."""


CONFIG = uvicorn.Config(nothing, log_config=None)
LARGE = bytes(range(256)) * 70
KINDS = {
    "plain": request("POST", "/a", b"one"),
    "same head": request("POST", "/a", b"two"),
    "longer": request("POST", "/a", b"three"),
    "end of a head within": request("POST", "/a", b"\r\n\r"),
    "elsewhere": request("POST", "/b", b"one"),
    "bodiless": request("GET", "/a"),
    "empty lines before": b"\r\n\r\n" + request("POST", "/a", b"one"),
    "in chunks": (
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\non\r\n1\r\ne\r\n0\r\n\r\n"
    ),
    "expects": request("POST", "/a", b"one", {"Expect": "100-continue"}),
    "large": request("POST", "/a", LARGE),
    "upgrade": request("POST", "/a", b"one", {"Upgrade": "h2c", "Connection": "Upgrade"}),
}


class Recorder(RepeatProtocol):
    """Notes every request, and how it was read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with none; nothing runs on `loop`."""
        super().__init__(config=CONFIG, server_state=ServerState(), app_state={}, _loop=loop)
        self.requests: list[tuple[bytes, bytes]] = []
        self.again = 0
        self._body = b""
        self._last: Head | None = None

    def takes_more(self) -> bool:
        return True

    def take_again(self, head: Head, body: bytes | memoryview) -> None:
        self.again += 1
        self.requests.append((head.url, bytes(body)))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._body = b""
        if self.offers_upgrade():
            return
        head = Head(b"POST", self.url, "1.1", self._raw, target=Target(model="m"), client=None)
        if self._last is not None and (self._last.url, self._last.raw) == (head.url, head.raw):
            self._met_again = self._last
        self._last = head

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.in_message = False
        if not self.offers_upgrade():
            self.requests.append((self.url, self._body))


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return a loop that never runs."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@given(
    st.lists(st.sampled_from(sorted(KINDS)), max_size=12),
    st.lists(st.integers(min_value=1, max_value=200), max_size=30),
)
def test_requests_are_the_same_however_they_repeat_and_are_cut(
    loop: asyncio.AbstractEventLoop, names: list[str], cuts: list[int]
) -> None:
    stream = b"".join(KINDS[name] for name in names)
    recorder = Recorder(loop)
    for cut in cuts:
        recorder.feed(stream[:cut])
        stream = stream[cut:]
    recorder.feed(stream)
    bodies = {
        "same head": b"two",
        "longer": b"three",
        "bodiless": b"",
        "large": LARGE,
        "end of a head within": b"\r\n\r",
    }
    assert recorder.requests == [
        (b"/b" if name == "elsewhere" else b"/a", bodies.get(name, b"one")) for name in names
    ]


def test_the_third_of_a_kind_is_not_parsed(loop: asyncio.AbstractEventLoop) -> None:
    recorder = Recorder(loop)
    for _ in range(5):
        recorder.feed(KINDS["plain"])
    recorder.feed(KINDS["same head"] * 2 + KINDS["elsewhere"] + KINDS["plain"])
    assert recorder.again == 5
    assert len(recorder.requests) == 9


@pytest.mark.parametrize(
    "name", ["expects", "in chunks", "empty lines before", "longer"], ids=lambda name: name
)
def test_what_is_not_one_whole_plain_request_is_not_looked_out_for(name: str) -> None:
    raw = [(b"Content-Length", b"3")]
    if name == "expects":
        raw.append((b"Expect", b"100-continue"))
    elif name == "in chunks":
        raw = []
    head = Head(b"POST", b"/a", "1.1", raw, target=Target(model="m"), client=None)
    assert find_repeat(KINDS[name], head) is None


def test_answers_to_the_same_request_again_and_again(server: Runner) -> None:
    with connect(server.url) as wire:
        for word in ("one", "two", "six", "ten", "three", "one"):
            wire.send(order(word))
            assert wire.read().body == word.encode()


def test_repeated_and_pipelined_with_others_between(server: Runner) -> None:
    with connect(server.url) as wire:
        for _ in range(3):
            wire.send(order("one"))
            assert wire.read().body == b"one"
        live = request("GET", "/livez")
        wire.send(order("two") + order("six") + live + order("ten") + order("one", close=True))
        assert [wire.read().body for _ in "12"] == [b"two", b"six"]
        assert wire.read().status == 200
        assert [wire.read().body for _ in "12"] == [b"ten", b"one"]
        assert wire.at_end()


def test_repeated_request_whose_body_comes_late(server: Runner) -> None:
    with connect(server.url) as wire:
        for _ in range(4):
            wire.send(order("one"))
            assert wire.read().body == b"one"
        whole = order("two")
        wire.send(whole[:-4])
        wire.send(whole[-4:])
        assert wire.read().body == b"two"


def test_error_to_a_repeated_request_closes_the_connection(server: Runner) -> None:
    with connect(server.url) as wire:
        for word in ("200", "201", "202", "404"):
            wire.send(order("x", status=int(word)))
            assert wire.read().status == int(word)
        assert wire.at_end()
