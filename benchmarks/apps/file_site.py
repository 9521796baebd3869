"""Serve one file on loopback as fast as the kernel can: `file_site.py FILE`; prints its port.

With ranges and an ETag, and with the headers of the Hub, whose client asks for them first.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FILE = Path(sys.argv[1])
SIZE = FILE.stat().st_size
TAG = hashlib.sha256(FILE.name.encode()).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BLOCK = 1 << 20


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        at, stop = self._head()
        self.wfile.flush()
        with FILE.open("rb") as file:
            while at < stop:
                count = min(stop - at, BLOCK)
                at += os.sendfile(self.connection.fileno(), file.fileno(), at, count)

    def _head(self) -> tuple[int, int]:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        stop = min(int(found[2]) + 1, SIZE) if found and found[2] else SIZE
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{SIZE}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{TAG}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        return start, stop

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
