"""A web site on loopback that misbehaves as told."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import zlib
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from hatch_mar.weights.cache import Cache
from hatch_mar.weights.fetch import Patience
from hatch_mar.weights.reference import Reference

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from email.message import Message
    from pathlib import Path

DATA = bytes(range(256)) * 12_000
"""Three megabytes: several chunks."""


@dataclass
class Fault:
    """What goes wrong with one answer."""

    status: int | None = None
    truncate: int | None = None
    """Send so many bytes and hang up."""
    stall: bool = False
    """After the truncated bytes, send nothing until `Site.over` is set, instead of hanging up."""
    length: int | None = None
    """Claim this Content-Length."""
    unknown: bool = False
    """Claim none: the end of the connection is the end of the file."""
    headers: dict[str, str] = field(default_factory=dict)
    becomes: bytes | None = None
    """After this answer, the file has these bytes."""


class Site:
    """The server's state: files by path, faults for the next answers, what was asked."""

    def __init__(self, url: str) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.ranges = True
        self.tags = True
        """Whether answers have a strong ETag."""
        self.redirects: dict[str, str] = {}
        self.tunnel: tuple[str, int] | None = None
        """Where this leads as a proxy."""
        self.asked: list[str] = []
        """One entry per request: its path, and its Range header if it had one."""
        self.headers: list[Message] = []
        """The headers of each request."""
        self.sent = threading.Event()
        """Set when a stalling answer has sent its bytes."""
        self.over = threading.Event()
        """Set by the test, or after it, to end what stalls."""
        self.url = url

    def fail(self, times: int = 1, **fault: Any) -> None:
        """Let the next answers go wrong: the fields are those of `Fault`."""
        self.faults += [Fault(**fault)] * times

    def __call__(self, path: str, data: bytes = DATA) -> str:
        """Serve `data` at `path`, and return its URL."""
        self.files[path] = data
        return self.url + path


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        wanted = self.headers.get("Range")
        site.asked.append(f"{self.path} {wanted}" if wanted else self.path)
        site.headers.append(self.headers)
        path = urlsplit(self.path).path  # a proxy is asked for whole URLs
        if path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[path])
            self.end_headers()
            return
        fault = site.faults.pop(0) if site.faults else Fault()
        data = site.files.get(path)
        if fault.becomes is not None:
            site.files[path] = fault.becomes
        if fault.status is not None or data is None:
            self._answer(fault.status or 404, b"", fault)
            return
        tag = f'"{zlib.crc32(data)}"' if site.tags else None
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "") if site.ranges else None
        if found and self.headers.get("If-Range") not in {None, tag}:
            found = None
        start, stop = 0, len(data)
        if found:
            start, stop = int(found[1]), min(int(found[2] or len(data)) + 1, len(data))
        if start and start >= len(data):
            self._answer(416, b"", fault)
            return
        headers = {"ETag": tag} if tag is not None else {}
        if found:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        fault = replace(fault, headers=headers | fault.headers)
        self._answer(206 if found else 200, data[start:stop], fault)

    def do_CONNECT(self) -> None:
        """Be a proxy to `site.tunnel`, whatever is asked for."""
        self.site.asked.append(f"CONNECT {self.path}")
        self.site.headers.append(self.headers)
        if self.site.tunnel is None:
            self.send_error(407)
            return
        with socket.create_connection(self.site.tunnel) as server:
            self.send_response(200)
            self.end_headers()
            pump = threading.Thread(target=_pump, args=(server, self.connection))
            pump.start()
            _pump(self.connection, server)
            pump.join()

    def _answer(self, status: int, data: bytes, fault: Fault) -> None:
        self.send_response(status)
        if not fault.unknown:
            self.send_header("Content-Length", str(fault.length or len(data)))
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(data, fault)

    def _send(self, data: bytes, fault: Fault) -> None:
        try:
            self.wfile.write(data[: fault.truncate])
            self.wfile.flush()
            if fault.stall:
                self.site.sent.set()
                self.site.over.wait(60)
        except ConnectionError:
            pass  # the client had enough

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


Start = Callable[..., Site]


@pytest.fixture
def start_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Return a function that starts a web site on an address, with TLS if it is given a context."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,127.0.0.2,localhost")
    monkeypatch.setenv("NETRC", "/nonexistent")
    with ExitStack() as stack:

        def start(address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Site:
            server = ThreadingHTTPServer((address, 0), BaseHTTPRequestHandler)
            site = Site(f"http{'s' if tls else ''}://{address}:{server.server_port}")
            server.RequestHandlerClass = type("Handler", (_Handler,), {"site": site})
            if tls is not None:
                server.socket = tls.wrap_socket(server.socket, server_side=True)
                server.handle_error = lambda *_: None  # type: ignore[method-assign]
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            stack.callback(site.over.set)
            return site

        yield start


@pytest.fixture
def site(start_site: Start) -> Site:
    """A web site that serves what a test gives it."""
    return start_site()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


def _reference(source: str, *mirrors: str, data: bytes = DATA, sized: bool = True) -> Reference:
    return Reference(
        target="model.pt",
        source=source,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data) if sized else None,
        mirrors=mirrors,
    )


@pytest.fixture
def refer() -> Callable[..., Reference]:
    """Return a function that locks `data` (by default `DATA`) at a source and its mirrors."""
    return _reference


@pytest.fixture
def waits() -> list[float]:
    """The seconds that a fetch would have slept."""
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    """Patience without waiting."""
    return Patience(attempts=3, sleep=waits.append, jitter=lambda: 1.0)


@pytest.fixture
def haste(patience: Patience) -> Patience:
    """The same, and two seconds for a server that stalls: a machine may lose one of them."""
    return replace(patience, stall=2.0)
