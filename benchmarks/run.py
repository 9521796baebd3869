"""Measure what hatch-mar costs, beside its peers, on this machine.

    python benchmarks/run.py echo        requests a second and latency, with wrk
    python benchmarks/run.py net         the same of a small network, as JSON and as bytes
    python benchmarks/run.py image       the same of a network that takes its time
    python benchmarks/run.py overload    more requests than the model can answer
    python benchmarks/run.py bodies      10 MB in, 10 MB out
    python benchmarks/run.py gpu         images a second on a GPU, beside a plain loop on it
    python benchmarks/run.py start       time to the first answer, and memory
    python benchmarks/run.py ready       ten models at once, against each alone
    python benchmarks/run.py warm-start  the first answer with big weights in the cache
    python benchmarks/run.py packaging   building archives and wheels of big weights
    python benchmarks/run.py hook        what the hook costs a build without weights
    python benchmarks/run.py weights     downloading big weights, verified
    python benchmarks/run.py publish     the results so far into docs/

Python 3.11 and wrk are enough, and Java for TorchServe: what is measured is installed under
`.work/`, hatch-mar from this checkout. Results go to `benchmarks/results/`. Leave the machine alone
meanwhile. `--rounds 1 --seconds 1 --into /tmp/trial` tries whether a benchmark works at all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import bodies, gpu, image, net, overload
from benchmarks.echo import run_echo
from benchmarks.hook import run_hook
from benchmarks.packaging import run_packaging
from benchmarks.peers import PEERS
from benchmarks.peers.work_servers import MAKERS
from benchmarks.ready import run_ready
from benchmarks.report import TABLES, publish
from benchmarks.start import run_start
from benchmarks.warm_start import run_warm_start
from benchmarks.weights import run_weights
from tests.support.environment import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RESULTS = Path(__file__).with_name("results")
ROUNDS = 7


def main() -> None:
    options = _parse()
    if options.command == "publish":
        for name in TABLES:
            if (RESULTS / f"{name}.json").exists():
                publish(name, json.loads((RESULTS / f"{name}.json").read_text()))
        return
    given = vars(options)
    command, into, run = (given.pop(name) for name in ("command", "into", "run"))
    saved = _save(into / f"{command}.json", {"machine": _machine(), **run(**given)})
    print(TABLES[command](saved))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("publish", help="write the tables into the documentation")
    for name, run, what in _COMMANDS:
        command = commands.add_parser(name, help=what)
        command.add_argument("--rounds", type=int, default=ROUNDS, help="how often all is measured")
        command.add_argument("--into", type=Path, default=RESULTS, help="where the results go")
        command.set_defaults(run=run)
        _add_options(command, name)
    return parser.parse_args()


def _add_options(command: argparse.ArgumentParser, name: str) -> None:
    """Add what `name` has besides rounds; the benchmark's function takes each by its name."""
    if name in ("packaging", "warm-start", "weights"):
        command.add_argument("--size", type=_mebibytes, default="1024", help="MiB of weights")
    if name == "ready":
        command.add_argument("--models", type=int, default=10, help="how many of them")
    if name == "gpu":
        _add_gpu_options(command)
    if name not in _SERVED:
        return
    servers, seconds, connections, tasks = _SERVED[name]
    help_only = "which servers, of: " + ", ".join(servers)
    command.add_argument(
        *("--only", "--peers"),
        dest="names",
        nargs="+",
        choices=servers,
        default=list(servers),
        metavar="SERVER",
        help=help_only,
    )
    command.add_argument("--seconds", type=float, default=seconds, help="length of one point")
    if connections:
        command.add_argument("--connections", type=int, nargs="+", default=connections)
    if tasks:
        command.add_argument("--tasks", nargs="+", choices=tasks, default=list(tasks))
    if name == "overload":
        help_loads = "what is offered, of the capacity"
        command.add_argument(
            "--loads", type=float, nargs="+", default=overload.LOADS, help=help_loads
        )
    if name == "bodies":
        command.add_argument("--size", type=int, default=10_000_000, help="bytes of a body")


def _add_gpu_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    command.add_argument("--sizes", type=int, nargs="+", default=gpu.SIZES, help="of the loop")
    command.add_argument("--modes", nargs="+", choices=gpu.MODES, default=list(gpu.MODES))
    command.add_argument("--limit", type=int, default=2000, help="MB of maxGPUMemory")
    command.add_argument("--seconds", type=float, default=3, help="length of one point")
    command.add_argument("--connections", type=int, nargs="+", default=[1, 2, 4, 64])


def _mebibytes(text: str) -> int:
    return int(text) << 20


_COMMANDS: Sequence[tuple[str, Callable[..., dict[str, Any]], str]] = (
    ("echo", run_echo, "throughput and latency of a handler that does nothing"),
    ("net", net.run_net, "throughput and latency of a small network"),
    ("image", image.run_image, "throughput and latency of a network that takes its time"),
    ("overload", overload.run_overload, "goodput when more is asked than can be done"),
    ("bodies", bodies.run_bodies, "throughput of large bodies"),
    ("gpu", gpu.run_gpu, "images a second on a GPU, beside a plain loop on it"),
    ("start", run_start, "time to the first answer, and memory"),
    ("ready", run_ready, "time until many models are ready"),
    ("warm-start", run_warm_start, "first answer with big weights in the cache"),
    ("packaging", run_packaging, "building archives and wheels of big weights"),
    ("hook", run_hook, "CPU time of a build without weights"),
    ("weights", run_weights, "downloading big weights from loopback"),
)
_SERVED: Mapping[str, tuple[Sequence[str], float, list[int], Sequence[str]]] = {
    "echo": (tuple(PEERS), 2, [1, 8, 64], ()),
    "net": (tuple(MAKERS), 1, [1, 8, 64], net.TASKS),
    "image": (image.SERVERS, 6, [1, 8], (*image.TASKS, image.NOOP)),
    "overload": (tuple(overload.SERVERS), 8, [], ()),
    "bodies": (tuple(bodies.MAKERS), 2, [1, 4], ()),
}
"""Of benchmarks that ask servers: which, seconds of a point, connections and tasks."""


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
