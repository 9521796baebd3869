"""A web site on loopback whose files stop in the middle until somebody opens the tap.

with start_tap() as tap:
    url = tap.serve("/w.bin", data, pause=1_000_000)
    ...                # a client has a million bytes now, and waits
    tap.open.set()     # and gets the rest
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Tap:
    """The site: what it serves, and what was asked of it."""

    url: str = ""
    files: dict[str, tuple[bytes, int | None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """One entry per request: its path, and its Range header if it had one."""
    paused: threading.Event = field(default_factory=threading.Event)
    """Set when an answer has come to its pause."""
    open: threading.Event = field(default_factory=threading.Event)
    """Set it to let everything through."""

    def serve(self, path: str, data: bytes, *, pause: int | None = None) -> str:
        """Serve `data` at `path`, and stop after its byte `pause`; return the URL."""
        self.files[path] = data, pause
        return self.url + path


class _Handler(BaseHTTPRequestHandler):
    tap: Tap

    def do_GET(self) -> None:
        tap = self.tap
        wanted = self.headers.get("Range", "")
        tap.asked.append(f"{self.path} {wanted}".rstrip())
        if self.path not in tap.files:
            self.send_error(404)
            return
        data, pause = tap.files[self.path]
        found = _RANGE.fullmatch(wanted)
        start = int(found[1]) if found else 0
        stop = min(int(found[2]) + 1, len(data)) if found and found[2] else len(data)
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        with suppress(ConnectionError):
            self._send(data, start, stop, pause)

    def _send(self, data: bytes, start: int, stop: int, pause: int | None) -> None:
        if pause is not None and start <= pause < stop:
            self.wfile.write(data[start:pause])
            self.wfile.flush()
            self.tap.paused.set()
            self.tap.open.wait(120)
            start = pause
        self.wfile.write(data[start:stop])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextmanager
def start_tap() -> Iterator[Tap]:
    """Run a site until the block ends."""
    tap = Tap()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"tap": tap}))
    tap.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield tap
    finally:
        tap.open.set()
        server.shutdown()
        thread.join()
        server.server_close()
