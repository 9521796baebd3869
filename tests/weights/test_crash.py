"""A process that fetches a gigabyte is killed at any moment, again and again."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
SIZE = 1 << 30
KILLS = 20
FETCHER = """
import sys
from pathlib import Path
from hatch_mar.weights.cache import Cache
from hatch_mar.weights.fetch import Lanes, fetch
from hatch_mar.weights.reference import Reference
source, sha256, size, cache, most = sys.argv[1:]
lanes = Lanes(most=int(most), part=4 << 20, smallest=1, idle=0.01)
reference = Reference(target="model.pt", source=source, sha256=sha256, size=int(size))
def tell(done, total):
    print(done, flush=True)
print(fetch(reference, Cache(Path(cache)), progress=tell, lanes=lanes))
"""


def _block(number: int) -> bytes:
    """Return one megabyte of the file, which costs nothing to make and is like no other."""
    return number.to_bytes(8, "big") * (MIB // 8)


class _Gigabyte(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sent: list[tuple[int, int]]
    """What was asked for."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "bytes=0-").removeprefix("bytes=")
        first, _, last = wanted.partition("-")
        start, stop = int(first), int(last) + 1 if last else SIZE
        self.sent.append((start, stop))
        self.send_response(206)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{SIZE}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        try:
            while start < stop:
                begin = start % MIB
                data = _block(start // MIB)[begin : begin + stop - start]
                self.wfile.write(data)
                start += len(data)
        except ConnectionError:
            self.close_connection = True  # the client was killed

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gigabyte(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    sent: list[tuple[int, int]] = []
    handler = type("Handler", (_Gigabyte,), {"sent": sent})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/w", sent
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("most", [1, 4])
def test_kill_after_kill_it_ends_with_the_right_bytes(
    gigabyte: tuple[str, list[tuple[int, int]]], tmp_path: Path, most: int
) -> None:
    """Over one connection, and over several that leave holes."""
    url, sent = gigabyte
    digest = hashlib.sha256()
    for number in range(SIZE // MIB):
        digest.update(_block(number))
    arguments = [url, digest.hexdigest(), str(SIZE), str(tmp_path), str(most)]
    command = [sys.executable, "-c", FETCHER, *arguments]
    chance = random.Random(4)
    reached, killed = 0, 0
    while killed < KILLS:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            further = chance.randrange(SIZE // KILLS)
            first: int | None = None
            for line in process.stdout:
                assert line.strip().isdigit(), "it was not meant to end"
                first = int(line) if first is None else first
                if int(line) >= min(reached + further, SIZE - MIB):
                    break
            assert first is not None
            reached = max(first, int(line))
            process.kill()
            killed += 1
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    path = Path(done.stdout.splitlines()[-1])
    assert path.name == digest.hexdigest()
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest.hexdigest()
    left = list((tmp_path / "partial").iterdir())
    assert left == [], "nothing is left over"
    taken_up = [start for start, _ in sent if start > 0]
    assert len(taken_up) >= KILLS // 2, "what was on the disk was kept"
    path.unlink()
