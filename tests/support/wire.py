"""HTTP/1.1 by hand: what a client library would tidy up is what these tests are about."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One response as it came over the wire."""

    head: bytes
    """Status line and headers, without the empty line."""
    body: bytes

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.head.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        """Headers by their name in lower case."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


class Wire:
    """A connection."""

    def __init__(self, url: str) -> None:
        """Connect to the host and port of `url`."""
        parts = urlsplit(url)
        self.socket = socket.create_connection(
            (parts.hostname or "", parts.port or 80), timeout=_TIMEOUT
        )
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connection, both ways."""
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send `data` as it is."""
        self.socket.sendall(data)

    def read(self, *, bodiless: bool = False) -> Answer:
        """Read one response; `bodiless` where a content-length announces no body (`HEAD`).

        Raises:
            ConnectionError: the server closed the connection before its end.
        """
        lines: list[bytes] = []
        while (line := self._file.readline()) != b"\r\n":
            if not line.endswith(b"\r\n"):
                raise ConnectionError(f"closed after {lines}, {line!r}")
            lines.append(line[:-2])
        answer = Answer(b"\r\n".join(lines), b"")
        size = 0 if bodiless else int(answer.headers.get("content-length", "0"))
        body = self._file.read(size)
        if len(body) < size:
            raise ConnectionError(f"closed after {len(body)} of {size} bytes")
        return Answer(answer.head, body)

    def at_end(self) -> bool:
        """Wait for the server to say more; tell whether it closed the connection instead."""
        return self._file.read(1) == b""


@contextmanager
def connect(url: str) -> Iterator[Wire]:
    """Connect to `url`'s host and port for the length of the block."""
    with Wire(url) as wire:
        yield wire


def order(text: str, *, close: bool = False, **orders: object) -> bytes:
    """Return a request for the model `odd`, which does what it is told and answers `text`."""
    headers = {"Content-Type": "application/json"} | ({"Connection": "close"} if close else {})
    return request(
        "POST", "/predictions/odd", json.dumps({"text": text, **orders}).encode(), headers
    )


def request(
    method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> bytes:
    """Return the bytes of a request."""
    fields = {"Host": "localhost", "Content-Length": str(len(body)), **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
