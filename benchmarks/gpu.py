"""A GPU behind a server: images a second, beside a plain loop on the same GPU.

The network is of ResNet-18's shape, and images come as bytes: a client's batch of them in a
request, as large as the loop's knee, or one in a request and batched by the server. On a machine
without a GPU there is nothing to measure; `--device cpu --sizes 1 2 --modes eager --seconds 5`
tries whether all of it works.
"""

from __future__ import annotations

import array
import base64
import dataclasses
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.apps.works import SIDE
from benchmarks.load import Ask, check_each, need_wrk, press
from benchmarks.peers.archive_servers import METRICS_PORT, serve_digits
from benchmarks.peers.python_servers import APPS, ASYNCIO
from benchmarks.peers.work_servers import IMAGES, hatch_mar, litserve, mosec, on_device
from benchmarks.rounds import Task, time_servers
from tests.support.environment import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.peers.peer import Peer
    from benchmarks.rounds import Point, Running

MODES = {
    "eager": "",
    "compile": "pt2: inductor\ncuda: {buckets: %(buckets)s}\n",
    "graphs": "cuda: {graphs: true, buckets: %(buckets)s}\n",
    "bfloat16": "cuda: {precision: bfloat16, channelsLast: true}\n",
}
"""How the network runs, and the lines of model-config.yaml that make it do so.

Two buckets, so that the first answers, which are checked, see all that is compiled or captured.
"""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
KNEE = 0.9
"""The smallest batch that gives so much of the best rate is the knee."""
CLOSE = 0.05
"""How far scores may be from the loop's, of the greatest: half precision has few digits."""
BARE = "/"
"""Path of the bare protocol."""
MOST_IMAGES = 64
"""Of a client's batch: more are more bytes than others take."""
MOST_BYTES = "100000000"
LIMITED = "hatch-mar, maxGPUMemory"
CHECKED = 8
PER_MODE_SECONDS = 2.0


def run_gpu(
    *,
    device: str,
    sizes: Sequence[int],
    modes: Sequence[str],
    limit: int,
    rounds: int,
    seconds: float,
    connections: Sequence[int],
) -> dict[str, Any]:
    """Time the loop, find its knee, and time every server there.

    Exits, with a line that says so and nothing measured, where there is no GPU.
    """
    if device == "cuda" and not has_gpu():
        say("there is no GPU that nvidia-smi can see: nothing to measure, nothing written")
        sys.exit()
    need_wrk()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one GPU, for everybody
    modes = list(dict.fromkeys(("eager", *modes)))
    say("the plain loop")
    found = _run_loop(device, sizes, modes, [make_pixels(one, 1).body for one in range(CHECKED)])
    knee = find_knee({int(size): rate for size, rate in found["rates"]["eager"].items()})
    say(f"the knee of {found['name']} is at {knee} images")
    scores = [base64.b64decode(answer) for answer in found.pop("answers")]
    tasks = _make_tasks(knee, scores)
    peers = _make_peers(tasks, modes, device, limit)
    versions = {peer.name: dict(peer.prepare()) for peer in peers}
    extras: list[dict[str, Any]] = []
    loops = [found["rates"]]

    def after(running: Running, points: Sequence[Point]) -> list[Point]:
        if running.peer.name.startswith("hatch-mar"):
            extras.append({"peer": running.peer.name, "reserved_mb": read_peak(running)})
        if running.peer.name == _name("eager"):
            # The loop takes turns with the servers, too, at the sizes that it is compared at.
            compared = sorted({1, knee, min(knee, MOST_IMAGES)})
            loops.append(_run_loop(device, compared, modes, [])["rates"])
            extras.append(
                {"peer": "both", **_press_both(running, tasks, max(connections), seconds)}
            )
        return []

    points = time_servers(
        peers, tasks, rounds=rounds, seconds=seconds, connections=connections, after=after
    )
    return {
        "rounds": rounds,
        "seconds": seconds,
        "connections": list(connections),
        "tasks": [task.name for task in tasks],
        "images": {task.name: count_images(task.name, knee) for task in tasks},
        "knee": knee,
        "limit": limit,
        "loop": {**found, "rates": merge_rates(loops)},
        "extras": extras,
        "versions": versions,
        "points": points,
    }


def has_gpu() -> bool:
    """Return whether the driver's own program lists a GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return listed.returncode == 0 and "GPU 0" in listed.stdout


def find_knee(rates: Mapping[int, float]) -> int:
    """Return the smallest size of a batch that gives nearly the best rate."""
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= KNEE * best)


def merge_rates(loops: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the median of each mode's rate at each size, of those loops that took it."""
    first = loops[0]
    return {
        mode: {
            size: median(loop[mode][size] for loop in loops if size in loop[mode])
            for size in first[mode]
        }
        for mode in first
    }


def count_images(task: str, knee: int) -> int:
    """Return how many images a request of `task` has."""
    return min(knee, MOST_IMAGES) if task.endswith("-1") else 1


def agrees(answer: bytes, right: bytes) -> bool:
    """Return whether scores, as float32, are as far from the right ones as they may be."""
    if len(answer) != len(right):
        return False
    pairs = list(zip(array.array("f", answer), array.array("f", right), strict=True))
    return max(abs(one - other) for one, other in pairs) <= CLOSE * max(abs(b) for _, b in pairs)


def make_pixels(number: int, images: int) -> Ask:
    """Return a request with `images` times the same image, brighter with its `number`."""
    image = random.Random(number).randbytes(SIDE * SIDE * 3)
    darker = bytes(value * (number + 1) // CHECKED for value in range(256))
    return Ask(body=image.translate(darker) * images, content_type="application/octet-stream")


def _make_tasks(knee: int, scores: Sequence[bytes]) -> list[Task]:
    """Return the tasks: a client's batches and single images, as bytes and as JSON."""

    def make(name: str, *, encoded: bool) -> Task:
        images = count_images(name, knee)
        asks = [make_pixels(number, images) for number in range(CHECKED)]
        if encoded:
            asks = [_encode(ask) for ask in asks]

        def is_right(number: int, answer: bytes) -> bool:
            said = base64.b64decode(json.loads(answer)["scores"]) if encoded else answer
            return agrees(said, scores[number] * images)

        def check(port: int, path: str) -> None:
            if path != BARE:  # which knows no scores
                check_each(port, path, asks, is_right)

        return Task(name=name, ask=asks[0], check=check)

    # A model's name is its task's; the knee is in the second one's batch size.
    return [
        make("pixels-1", encoded=False),
        make(f"pixels-{max(2, knee)}", encoded=False),
        make("encoded-1", encoded=True),
    ]


def _encode(ask: Ask) -> Ask:
    text = json.dumps({"pixels": base64.b64encode(ask.body).decode()})
    return Ask(body=text.encode(), content_type="application/json")


def _make_peers(tasks: Sequence[Task], modes: Sequence[str], device: str, limit: int) -> list[Peer]:
    names = [task.name for task in tasks if task.name.startswith("pixels")]
    bare = dataclasses.replace(
        ASYNCIO, paths=dict.fromkeys(names, BARE), arguments=(*ASYNCIO.arguments, "ok")
    )
    peers: list[Peer] = [bare]
    buckets = sorted({1, *(int(name.rpartition("-")[2]) for name in names)})
    configs = {_name(mode): MODES[mode] % {"buckets": buckets} for mode in modes}
    configs[LIMITED] = f"system: {{maxGPUMemory: {limit}}}\n"
    larger = ("--max-request-size", MOST_BYTES)
    peers += [
        hatch_mar(names, larger, config, name=name, handler=IMAGES)
        for name, config in configs.items()
    ]
    peers.append(on_device(mosec(names, ["--timeout=60000"]), device))
    encoded = [task.name for task in tasks if task.name.startswith("encoded")]
    return [*peers, on_device(litserve(encoded, device), device)]


def _name(mode: str) -> str:
    return "hatch-mar" if mode == "eager" else f"hatch-mar, {mode}"


def _press_both(
    running: Running, tasks: Sequence[Task], connections: int, seconds: float
) -> dict[str, float]:
    """Load two models on one GPU at once; return the images a second of each."""
    both = [task for task in tasks if task.name in running.peer.paths][:2]

    def rate(task: Task) -> float:
        path = running.peer.paths[task.name]
        load = press(running.port, path, task.ask, connections, seconds)
        return load.rate * len(task.ask.body) / (SIDE * SIDE * 3)

    with ThreadPoolExecutor(len(both)) as pool:
        rates = list(pool.map(rate, both))
    return {task.name: rate for task, rate in zip(both, rates, strict=True)}


def read_peak(running: Running) -> float:
    """Return the MB that any of hatch-mar's workers had set aside at most, by its own metrics."""
    port = (running.tallies.parent / METRICS_PORT).read_text()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return max(read_values(text, "gpu_memory_reserved_peak_megabytes"), default=0.0)


def read_values(exposition: str, name: str) -> Iterator[float]:
    for found in re.finditer(rf"^\w*{name}(?:{{.*}})? (\S+)", exposition, re.MULTILINE):
        yield float(found[1])


def _run_loop(
    device: str, sizes: Sequence[int], modes: Sequence[str], bodies: Sequence[bytes]
) -> dict[str, Any]:
    python = serve_digits().with_name("python")
    with tempfile.TemporaryDirectory(prefix="hatch-mar-benchmark-") as scratch:
        paths = [Path(scratch) / f"{number}.body" for number in range(len(bodies))]
        for path, body in zip(paths, bodies, strict=True):
            path.write_bytes(body)
        order = {
            "device": device,
            "sizes": list(sizes),
            "modes": list(modes),
            "seconds": PER_MODE_SECONDS,
            "bodies": list(map(str, paths)),
        }
        done = subprocess.run(
            [str(python), str(APPS / "gpu_loop.py")],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"the plain loop failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
