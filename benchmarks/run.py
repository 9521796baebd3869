"""Measure what hatch-mar costs, beside its peers, on this machine.

    python benchmarks/run.py echo --rounds 5      requests a second and latency, with wrk
    python benchmarks/run.py start --rounds 5     time to the first answer, and memory
    python benchmarks/run.py ready --rounds 5     ten models at once, against each alone
    python benchmarks/run.py packaging --rounds 5 building archives and wheels of big weights
    python benchmarks/run.py warm-start           the first answer with big weights in the cache
    python benchmarks/run.py weights --rounds 5   downloading big weights, verified
    python benchmarks/run.py publish              the results so far into docs/

Python 3.11 and wrk are enough: what is measured is installed under `.work/`, hatch-mar from this
checkout. Results go to `benchmarks/results/`. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.echo import run_echo
from benchmarks.hook import run_hook
from benchmarks.packaging import run_packaging
from benchmarks.peers import PEERS
from benchmarks.ready import run_ready
from benchmarks.report import TABLES, publish
from benchmarks.start import run_start
from benchmarks.warm_start import run_warm_start
from benchmarks.weights import run_weights
from tests.support.environment import say

RESULTS = Path(__file__).with_name("results")


def main() -> None:
    options = _parse()
    if options.command == "publish":
        for name in TABLES:
            if (RESULTS / f"{name}.json").exists():
                publish(name, json.loads((RESULTS / f"{name}.json").read_text()))
        return
    if options.command == "echo":
        results = run_echo(
            options.peers,
            rounds=options.rounds,
            seconds=options.seconds,
            connections=options.connections,
        )
    elif options.command == "packaging":
        results = run_packaging(rounds=options.rounds, size=options.size << 20)
    elif options.command == "warm-start":
        results = run_warm_start(rounds=options.rounds, size=options.size << 20)
    elif options.command == "weights":
        results = run_weights(rounds=options.rounds, size=options.size << 20)
    elif options.command == "ready":
        results = run_ready(rounds=options.rounds, models=options.models)
    elif options.command == "hook":
        results = run_hook(rounds=options.rounds)
    else:
        results = run_start(rounds=options.rounds)
    saved = _save(options.into / f"{options.command}.json", {"machine": _machine(), **results})
    print(TABLES[options.command](saved))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    echo = commands.add_parser("echo", help="throughput and latency of a handler that does nothing")
    start = commands.add_parser("start", help="time to the first answer, and memory")
    ready = commands.add_parser("ready", help="time until many models are ready")
    packaging = commands.add_parser("packaging", help="building archives and wheels of big weights")
    hook = commands.add_parser("hook", help="CPU time of a build without weights")
    warm = commands.add_parser("warm-start", help="first answer with big weights in the cache")
    weights = commands.add_parser("weights", help="downloading big weights from loopback")
    commands.add_parser("publish", help="write the tables into the documentation")
    for command in (echo, start, ready, packaging, warm, hook, weights):
        command.add_argument("--rounds", type=int, default=5)
        command.add_argument("--into", type=Path, default=RESULTS, help="where the results go")
    for command in (packaging, warm, weights):
        command.add_argument("--size", type=int, default=1024, help="MiB of weights")
    ready.add_argument("--models", type=int, default=10, help="how many of them")
    echo.add_argument("--seconds", type=int, default=3, help="length of one point")
    echo.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    echo.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    return parser.parse_args()


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "processor": models[0] if models else platform.machine(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def _save(path: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Write `results`, and return them as a later `publish` will read them."""
    text = json.dumps(results, indent=1, default=dataclasses.asdict)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    say(f"results: {path}")
    read: dict[str, Any] = json.loads(text)
    return read


if __name__ == "__main__":
    main()
