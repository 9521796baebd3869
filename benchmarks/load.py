"""Asking a server: one request at a time to see that it is right, then with wrk to time it."""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.processes import Started

SCRIPT = Path(__file__).with_name("wrk.lua")
BODY = json.dumps({"id": 1234567, "text": "the quick brown fox jumps", "scores": [0.25, 0.5, 1.0]})
assert len(BODY) == 80
_START_WITHIN = 90.0
_POLL = 0.01
"""Seconds between two tries: more of them would take CPU from what they wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What wrk saw in one go."""

    rate: float
    """Requests a second."""
    p50: float
    """Milliseconds."""
    p99: float
    requests: int
    client_cpu: float
    """CPU seconds of wrk itself."""


def need_wrk() -> None:
    """Exit with the line that installs wrk, if it is missing."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is not on PATH; on Debian: apt-get install wrk")


def await_answer(
    server: Started, port: int, path: str, body: bytes, content_type: str = ""
) -> tuple[float, bytes]:
    """Ask until the answer is 200; return when that came (`perf_counter`) and what it said."""
    status, answer = 0, b""
    deadline = time.perf_counter() + _START_WITHIN
    while time.perf_counter() < deadline and server.process.poll() is None:
        try:
            status, answer = ask(port, path, body, content_type)
        except OSError:
            status, answer = 0, b"(no connection)"
        if status == http.client.OK:
            return time.perf_counter(), answer
        time.sleep(_POLL)
    said = server.output.read_text(errors="replace")[-4000:]
    sys.exit(f"{said}\nno answer: {status} {answer.decode(errors='replace')}")


def ask(port: int, path: str, body: bytes, content_type: str = "") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Content-Type": content_type} if content_type else {}
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()


def check_answers(port: int, path: str, count: int = 64) -> None:
    """Exit unless `count` different requests each get their own JSON back."""
    for number in range(count):
        sent: dict[str, Any] = {"id": number, "text": f"request {number}", "scores": [number / 7]}
        status, answer = ask(port, path, json.dumps(sent).encode(), "application/json")
        if status != http.client.OK or json.loads(answer) != sent:
            sys.exit(f"wrong answer: {status} {answer!r} to {sent}")


def press(port: int, path: str, *, connections: int, seconds: int) -> Load:
    """Send the 80-byte body over `connections` kept-alive connections, each as fast as answered."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT)]
    report = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{path}"],
        env={**os.environ, "BENCHMARK_BODY": BODY},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seen = json.loads(report.splitlines()[-1])
    if seen["failed"] or not seen["requests"]:
        sys.exit(f"requests failed under load:\n{report}")
    return Load(
        rate=seen["requests"] / seen["seconds"],
        p50=seen["p50"] / 1000,
        p99=seen["p99"] / 1000,
        requests=seen["requests"],
        client_cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )
