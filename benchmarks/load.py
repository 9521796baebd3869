"""Asking a server: one request at a time to see that it is right, then with wrk to time it."""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.processes import Started

SCRIPT = Path(__file__).with_name("wrk.lua")
TRIES = 3
"""So often a point is taken until none of its requests fails."""
BODY = json.dumps({"id": 1234567, "text": "the quick brown fox jumps", "scores": [0.25, 0.5, 1.0]})
assert len(BODY) == 80
_START_WITHIN = 90.0
_ANSWER_WITHIN = 300.0
"""Seconds for a single answer: the first ones of a model may wait for a compiler."""
_POLL = 0.01
"""Seconds between two tries: more of them would take CPU from what they wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request: what is sent."""

    body: bytes
    content_type: str


ECHO = Ask(body=BODY.encode(), content_type="application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the clients saw in one go."""

    rate: float
    """Requests a second."""
    p50: float
    """Milliseconds."""
    p99: float
    requests: int
    client_cpu: float
    """CPU seconds of the clients themselves."""


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
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_WITHIN)
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


def check_each(
    port: int, path: str, asks: Sequence[Ask], right: Callable[[int, bytes], bool]
) -> None:
    """Exit unless `right` says of the answer to each of `asks`, given its number, that it is so.

    They are asked one at a time and then at once, so that an answer that went to somebody else
    shows.
    """

    def answers_rightly(number: int) -> None:
        status, answer = ask(port, path, asks[number].body, asks[number].content_type)
        if status != http.client.OK or not right(number, answer):
            sys.exit(f"wrong answer: {status} {answer[:1000]!r} to request {number} of {path}")

    for number in range(len(asks)):
        answers_rightly(number)
    with ThreadPoolExecutor(len(asks)) as pool:
        list(pool.map(answers_rightly, range(len(asks))))


def press(port: int, path: str, request: Ask, connections: int, seconds: float) -> Load:
    """Send `request` over `connections` kept-alive connections, each as fast as it is answered.

    A point with requests that failed is no figure: it is taken again, and said so.
    """
    for _ in range(TRIES):
        load, report = _press_once(port, path, request, connections, seconds)
        if load is not None:
            return load
        print(f"requests failed under load, once more:\n{report}", file=sys.stderr)
    sys.exit(f"requests failed under load {TRIES} times")


def _press_once(
    port: int, path: str, request: Ask, connections: int, seconds: float
) -> tuple[Load | None, str]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.NamedTemporaryFile(prefix="hatch-mar-body-") as body:
        body.write(request.body)
        body.flush()
        # wrk knows whole seconds only.
        duration = f"-d{max(1, round(seconds))}s"
        command = ["wrk", "-t1", f"-c{connections}", duration, "--timeout", "30s"]
        report = subprocess.run(
            [*command, "-s", str(SCRIPT), f"http://127.0.0.1:{port}{path}"],
            env={**os.environ, "BENCHMARK_BODY": body.name, "BENCHMARK_TYPE": request.content_type},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seen = json.loads(report.splitlines()[-1])
    if seen["failed"] or not seen["requests"]:
        return None, report
    load = Load(
        rate=seen["requests"] / seen["seconds"],
        p50=seen["p50"] / 1000,
        p99=seen["p99"] / 1000,
        requests=seen["requests"],
        client_cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )
    return load, report
