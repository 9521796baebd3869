"""A web site on loopback that misbehaves as told."""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.weights.cache import Cache
from hatch_mar.weights.fetch import Patience
from hatch_mar.weights.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
    headers: dict[str, str] = field(default_factory=dict)


class Site:
    """The server's state: files by path, faults for the next answers, what was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.ranges = True
        self.redirects: dict[str, str] = {}
        self.asked: list[str] = []
        """One entry per request: its path, and its Range header if it had one."""
        self.sent = threading.Event()
        """Set when a stalling answer has sent its bytes."""
        self.over = threading.Event()
        """Set by the test, or after it, to end what stalls."""
        self.url = ""

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
        if self.path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[self.path])
            self.end_headers()
            return
        fault = site.faults.pop(0) if site.faults else Fault()
        data = site.files.get(self.path.partition("?")[0])
        if fault.status is not None or data is None:
            self.send_error(fault.status or 404)
            return
        found = re.fullmatch(r"bytes=(\d+)-", wanted or "") if site.ranges else None
        start = int(found[1]) if found else 0
        if start and start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(fault.length or len(data) - start))
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(data[start:], fault)

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


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A web site that serves what a test gives it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    site.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


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
    """The same, and half a second for a server that stalls."""
    return replace(patience, stall=0.5)
