"""The fast lane, byte for byte and connection by connection."""

from __future__ import annotations

import re
import signal
import struct
from http.client import HTTPConnection
from socket import SHUT_WR, SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.support.runner import await_file
from tests.support.wire import connect, order, request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.runner import Runner

UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
USUAL = (
    rf"x-request-id: {UUID4}\r\n"
    r"Pragma: no-cache\r\n"
    r"Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
    r"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)
LIMIT = 6_553_500


def await_pending(runner: Runner, model: str, count: int) -> None:
    """Return when `count` requests of `model` are not begun; the test's time limit is the limit."""
    while True:
        with urlopen(f"{runner.management_url}/models/{model}") as answer:
            if f'"pendingRequests": {count}\n' in answer.read().decode():
                return


def test_success_byte_for_byte(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(order("hello"))
        answer = wire.read()
    expected = rf"HTTP/1\.1 200 \r\n{USUAL}content-length: 5\r\nconnection: keep-alive"
    assert re.fullmatch(expected, answer.head.decode())
    assert answer.body == b"hello"


def test_what_the_handler_sets_byte_for_byte(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(order("x", status=201, phrase="Made", type="text/plain", headers={"X-A": "b"}))
        answer = wire.read()
    expected = (
        rf"HTTP/1\.1 201 Made\r\ncontent-type: text/plain\r\nX-A: b\r\n{USUAL}"
        r"content-length: 1\r\nconnection: keep-alive"
    )
    assert re.fullmatch(expected, answer.head.decode())


def test_error_byte_for_byte(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(request("GET", "/predictions/nobody"))
        answer = wire.read()
        assert wire.at_end()
    expected = (
        rf"HTTP/1\.1 404 Not Found\r\ncontent-type: application/json\r\n{USUAL}"
        r"content-length: \d+\r\nconnection: close"
    )
    assert re.fullmatch(expected, answer.head.decode())
    assert answer.body == (
        b'{\n  "code": 404,\n  "type": "ModelNotFoundException",\n'
        b'  "message": "Model not found: nobody"\n}\n'
    )


def test_handlers_own_error_status_closes_the_connection(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(order("no", status=418))
        answer = wire.read()
        assert wire.at_end()
    assert answer.head.startswith(b"HTTP/1.1 418 \r\n")
    assert answer.headers["connection"] == "close"
    assert answer.body == b"no"


def test_exception_in_the_handler(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(order("", error="secret"))
        answer = wire.read()
    assert answer.status == 503
    assert b'"type": "InternalServerException"' in answer.body
    assert b'"message": "Prediction failed"' in answer.body
    assert b"secret" not in answer.body


def test_header_names_reach_the_handler_as_sent(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(request("POST", "/predictions/mirror", b"x", {"X-MiXeD": "Value"}))
        assert b'"X-MiXeD": "Value"' in wire.read().body


def test_request_id_is_the_handlers_and_not_the_clients(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(request("POST", "/predictions/mirror", b"x", {"x-request-id": "mine"}))
        answer = wire.read()
    assert answer.headers["x-request-id"] != "mine"
    assert f'"id": "{answer.headers["x-request-id"]}"'.encode() in answer.body


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "POST"])
def test_any_method_predicts(server: Runner, method: str) -> None:
    with connect(server.url) as wire:
        wire.send(request(method, "/predictions/mirror", b"x"))
        assert wire.read().status == 200


def test_head_has_the_length_and_no_body(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(request("HEAD", "/predictions/mirror") + order("next"))
        assert int(wire.read(bodiless=True).headers["content-length"]) > 0
        assert wire.read().body == b"next"


def test_versions_and_url_path(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(request("GET", "/predictions/mirror/2.0/a/b?q=1"))
        assert b'"url_path": "a/b"' in wire.read().body
        wire.send(request("GET", "/predictions/mirror/9"))
        assert b"ModelVersionNotFoundException" in wire.read().body


def test_the_same_head_again_and_another_one(server: Runner) -> None:
    with connect(server.url) as wire:
        for path in ("/predictions/mirror/1.0/a", "/predictions/mirror/1.0/b") * 2:
            wire.send(request("GET", path))
            assert f'"url_path": "{path[-1]}"'.encode() in wire.read().body


def test_pipelined_answers_come_in_order(server: Runner) -> None:
    words = [f"word-{number}" for number in range(50)]
    with connect(server.url) as wire:
        wire.send(b"".join(order(word) for word in words))
        assert [wire.read().body.decode() for _ in words] == words


def test_pipelined_lanes_do_not_overtake_each_other(server: Runner) -> None:
    with connect(server.url) as wire:
        slow = request("GET", "/livez")
        wire.send(order("1") + slow + order("2") + order("3") + slow + slow + order("4"))
        bodies = [wire.read().body for _ in range(7)]
    alive = b'{\n  "status": "alive"\n}\n'
    assert bodies == [b"1", alive, b"2", b"3", alive, alive, b"4"]


def test_what_follows_a_last_request_is_not_read(server: Runner, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    with connect(server.url) as wire:
        wire.send(order("last", close=True) + order("more", touch=str(touched)))
        assert wire.read().headers["connection"] == "close"
        assert wire.at_end()
    assert not touched.exists()


def test_chunked_body(server: Runner) -> None:
    head = (
        b"POST /predictions/mirror HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: text/plain\r\n\r\n"
    )
    with connect(server.url) as wire:
        wire.send(head + b"3\r\nabc\r\n")
        wire.send(b"4;ext=1\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n" + order("next"))
        assert b'"abcdefg"' in wire.read().body
        assert wire.read().body == b"next"


def test_body_in_pieces(server: Runner) -> None:
    whole = order("x" * 1000)
    with connect(server.url) as wire:
        for at in range(0, len(whole), 97):
            wire.send(whole[at : at + 97])
        assert wire.read().body == b"x" * 1000


def test_expect_continue(server: Runner) -> None:
    head = request("POST", "/predictions/mirror", b"", {"Expect": "100-continue"})
    head = head.replace(b"Content-Length: 0", b"Content-Length: 5")
    with connect(server.url) as wire:
        wire.send(head)
        assert wire.read().head == b"HTTP/1.1 100 Continue"
        wire.send(b"12345")
        assert b"12345" in wire.read().body


def test_continue_waits_for_the_answers_before_it(odd: Runner, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    head = request("POST", "/predictions/odd", b"", {"Expect": "100-continue"})
    head = head.replace(b"Content-Length: 0", b"Content-Length: 5")
    with connect(odd.url) as wire:
        wire.send(order("first", until=str(gate)) + head)
        gate.touch()
        assert wire.read().body == b"first"
        assert wire.read().head == b"HTTP/1.1 100 Continue"


def test_who_sends_ahead_is_not_reset_by_an_error_before(server: Runner) -> None:
    """It may be sending still, and have answers to read: a reset would take them."""
    with connect(server.url) as wire:
        wire.send(order("first") + order("no", status=404) + order("behind"))
        assert [wire.read().status for _ in "12"] == [200, 404]
        assert wire.at_end()
        for _ in range(3):
            wire.send(order("still on its way"))


def test_http_1_0_closes(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(b"GET /predictions/mirror HTTP/1.0\r\n\r\n")
        assert wire.read().headers["connection"] == "close"
        assert wire.at_end()


def test_http_1_0_keeps_alive_on_request(server: Runner) -> None:
    with connect(server.url) as wire:
        for _ in range(2):
            wire.send(b"GET /predictions/mirror HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert wire.read().headers["connection"] == "keep-alive"


@pytest.mark.parametrize("framing", ["Content-Length: 6553501", "Transfer-Encoding: chunked"])
def test_body_above_the_limit_is_a_bare_413(server: Runner, framing: str) -> None:
    with connect(server.url) as wire:
        wire.send(f"POST /predictions/odd HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
        if "chunked" in framing:
            wire.send(b"%x\r\n" % (LIMIT + 1) + bytes(LIMIT + 1) + b"\r\n")
        answer = wire.read()
        assert wire.at_end()
    assert answer.head == (
        b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\nconnection: close"
    )


def test_413_reaches_a_client_that_is_still_sending(server: Runner) -> None:
    body = bytes(2 * LIMIT)
    with connect(server.url) as wire:
        wire.send(request("POST", "/predictions/odd", body))
        assert wire.read().status == 413


def test_body_at_the_limit(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(request("POST", "/predictions/mirror", bytes(LIMIT), {"Content-Type": "a/b"}))
        assert wire.read().status == 500  # the mirror's answer is above the other limit


def test_response_above_the_limit(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(order("x", times=LIMIT + 1))
        answer = wire.read()
    assert answer.status == 500
    assert b"InternalServerException" in answer.body


def test_large_response(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(order("x", times=LIMIT))
        assert wire.read().body == b"x" * LIMIT


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / FTP/9\r\n\r\n",
        b"CONNECT nowhere HTTP/1.1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nA b: c\r\n\r\n",
        b"POST /predictions/odd HTTP/1.1\r\nA: b\x00c\r\n\r\n",
        b"POST /predictions/odd HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /predictions/odd HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /predictions/odd HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
    ],
)
def test_garbage_is_refused_after_the_answers_that_are_due(server: Runner, garbage: bytes) -> None:
    with connect(server.url) as wire:
        wire.send(order("due") + garbage)
        assert wire.read().body == b"due"
        answer = wire.read()
        assert wire.at_end()
    assert answer.status == 400
    assert b'"type": "BadRequestException"' in answer.body


def test_garbage_within_a_body(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(
            b"POST /predictions/odd HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"
        )
        assert wire.read().status == 400
        assert wire.at_end()


def test_upgrade_is_not_taken(server: Runner) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "h2c"}
    offering = order("whole").replace(b"Host:", b"Connection: Upgrade\r\nUpgrade: h2c\r\nHost:", 1)
    with connect(server.url) as wire:
        wire.send(offering)
        wire.send(request("GET", "/livez", b"", headers) + order("next"))
        assert wire.read().body == b"whole"
        assert wire.read().status == 200
        assert wire.read().body == b"next"


def test_tunnels_are_not_dug(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(b"CONNECT /predictions/mirror HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.read().status == 400
        assert wire.at_end()


def test_garbage_behind_requests_that_uvicorn_answers(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(request("GET", "/livez", b"") * 2 + b"GARBAGE\r\n\r\n")
        assert wire.read().status == 200
        assert wire.read().status == 200
        assert wire.at_end()


def test_an_old_client_is_told_once_that_the_connection_ends(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = wire.read()
        assert wire.at_end()
    assert answer.head.count(b"connection: ") == 1
    assert answer.headers["connection"] == "close"


def test_malformed_form(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.send(request("POST", "/predictions/odd", b"", {"Content-Type": "multipart/form-data"}))
        answer = wire.read()
    assert answer.status == 400
    assert b"BadRequestException" in answer.body


def test_client_that_leaves_is_taken_out_of_the_queue(odd: Runner, tmp_path: Path) -> None:
    started, gate, touched = (tmp_path / name for name in ("started", "gate", "touched"))
    with connect(odd.url) as busy, connect(odd.url) as held, connect(odd.url) as gone:
        busy.send(order("kept", touch=str(started), until=str(gate)))
        await_file(started)
        held.send(order("held"))  # a busy worker holds one more, and what it holds it will run
        await_pending(odd, "odd", 1)
        gone.send(order("", touch=str(touched)) * 10)
        await_pending(odd, "odd", 11)
        gone.socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
        await_pending(odd, "odd", 1)
        gate.touch()
        assert busy.read().body == b"kept"
        assert held.read().body == b"held"
    assert not touched.exists()


def test_queue_full(odd: Runner, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with connect(odd.url) as busy, connect(odd.url) as late:
        busy.send(order("", until=str(gate)))
        with connect(odd.url) as crowd:
            crowd.send(order("") * 63)
            with connect(odd.url) as more:
                more.send(order("") * 60)
                await_pending(odd, "odd", 100)
                late.send(order(""))
                answer = late.read()
                gate.touch()
    assert answer.status == 503
    assert b"ServiceUnavailableException" in answer.body
    assert int(answer.headers["retry-after"]) > 0
    assert b'Model \\"odd\\" has no worker to serve inference request.' in answer.body


def test_worker_that_dies_answers_500(odd: Runner) -> None:
    with connect(odd.url) as wire:
        wire.send(order("", die=True))
        answer = wire.read()
    assert answer.status == 500
    assert b'"message": "Worker died."' in answer.body


def test_accepted_requests_are_answered_on_shutdown(odd: Runner, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with connect(odd.url) as one, connect(odd.url) as two, connect(odd.url) as idle:
        one.send(order("first", until=str(gate)))
        two.send(order("second") + order("third"))
        await_pending(odd, "odd", 2)
        odd.process.send_signal(signal.SIGTERM)
        assert idle.at_end()
        gate.touch()
        assert one.read().body == b"first"
        assert two.read().body == b"second"
        last = two.read()
        assert (last.body, last.headers["connection"]) == (b"third", "close")
        assert two.at_end()
    assert odd.process.wait() == 0


def test_half_closed_client_counts_as_gone(server: Runner) -> None:
    with connect(server.url) as wire:
        wire.socket.shutdown(SHUT_WR)
        assert wire.at_end()


def test_client_library_keeps_its_connection(server: Runner) -> None:
    parts = urlsplit(server.url)
    client = HTTPConnection(parts.hostname or "", parts.port)
    for _ in range(3):
        client.request("POST", "/predictions/mirror", b"x")
        first = client.sock
        assert client.getresponse().read()
        assert client.sock is first
    client.close()
