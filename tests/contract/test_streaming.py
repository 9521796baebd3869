"""Streams byte for byte: TorchServe's chunks and ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.scenes import Model
from tests.support.torchserve import start_torchserve
from tests.support.wire import connect, request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.torchserve import TorchServeHome

WISHES = ("words", "kinds", "empty", "older", "head", "late-head")
_ID = re.compile(rb"x-request-id: [0-9a-f-]{36}")


def stream(url: str, wish: str) -> tuple[list[bytes], bytes]:
    """Return the lines of the head, sorted, and the body with its chunks, up to the last one."""
    data = b""
    with connect(url) as wire:
        wire.send(request("POST", "/predictions/streaming", b"", {"X-Do": wish}))
        while not data.endswith(b"\r\n0\r\n\r\n"):
            piece = wire.socket.recv(65536)
            assert piece, data
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return sorted(_ID.sub(b"x-request-id: ID", head).split(b"\r\n")), body


def streams(home: TorchServeHome | None, store: Path) -> list[tuple[list[bytes], bytes]]:
    with start_torchserve(home, store) as server:
        return [stream(server.url, wish) for wish in WISHES]


@pytest.mark.slow
def test_same_bytes(torchserve_home: TorchServeHome, tmp_path: Path) -> None:
    Model(name="streaming", project="streaming").write(tmp_path)
    theirs, ours = streams(torchserve_home, tmp_path), streams(None, tmp_path)
    assert dict(zip(WISHES, ours, strict=True)) == dict(zip(WISHES, theirs, strict=True))
