"""What there would be without a server: `apps/worker_loop.py`, driven from here."""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.apps import works
from benchmarks.load import check_each
from benchmarks.peers.archive_servers import serve_digits
from benchmarks.peers.python_servers import APPS
from benchmarks.rounds import ONE_THREAD, Point, Task
from benchmarks.tally import mean_size, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.load import Ask

LOOP, FUNCTION = "the worker's own loop", "the bare function"
CLOSE = 1e-4
"""How far numbers may be apart, as a share: a batch adds up in another order than a single row."""


def make_check(task: str, asks: Sequence[Ask]) -> Callable[[int, str], None]:
    """Return what exits unless a server answers `asks` as the handler does without a server."""
    order = {"task": task, "content_type": asks[0].content_type}
    right = [base64.b64decode(answer) for answer in _run(order, asks)]

    def is_right(number: int, answer: bytes) -> bool:
        if answer == right[number]:
            return True
        if works.gives_json(task):
            return is_close(json.loads(answer), json.loads(right[number]))
        pairs = (memoryview(one) for one in (answer, right[number]))
        return len(answer) == len(right[number]) and is_close(
            *(pair.cast("f").tolist() for pair in pairs)
        )

    return lambda port, path: check_each(port, path, asks, is_right)


def time_ceilings(
    task: Task, number: int, sizes: Mapping[int, int], *, connections: int, seconds: float
) -> list[Point]:
    """Return what the loop and the function do with batches as they were seen: `sizes`."""
    order = {
        "task": task.name,
        "content_type": task.ask.content_type,
        "sizes": replay(sizes),
        "seconds": seconds,
    }
    rates = _run(order, [task.ask])
    named = {LOOP: rates["loop"], FUNCTION: rates["function"]}
    batch = mean_size(sizes)
    return [
        Point(
            peer=name,
            task=task.name,
            round=number,
            connections=connections,
            rate=rate,
            p50=batch / rate * 1000,
            p99=batch / rate * 1000,
            sizes=sizes,
        )
        for name, rate in named.items()
    ]


def is_close(one: Any, other: Any) -> bool:
    """Return whether two values of JSON are equal but for the last digits of their numbers."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_close, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_close(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE / 100)
    return bool(one == other)


def _run(order: dict[str, Any], asks: Sequence[Ask]) -> Any:
    """Run the program on the environment that the server runs in; return what it prints."""
    python = serve_digits().with_name("python")
    with tempfile.TemporaryDirectory(prefix="hatch-mar-benchmark-") as scratch:
        paths = [Path(scratch) / f"{number}.body" for number in range(len(asks))]
        for path, ask in zip(paths, asks, strict=True):
            path.write_bytes(ask.body)
        done = subprocess.run(
            [str(python), str(APPS / "worker_loop.py")],
            input=json.dumps({**order, "bodies": list(map(str, paths))}),
            env={**os.environ, **ONE_THREAD},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"{order['task']}: the worker's own loop failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
