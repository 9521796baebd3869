"""Many models at once: how long until all of them are ready, and what each costs alone.

No machine loads ten models sooner than the CPU seconds of loading each of them, divided among its
cores. What comes on top is what the models do to each other.
"""

from __future__ import annotations

import http.client
import io
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers.archive_servers import serve_digits
from benchmarks.processes import free_port, started
from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.write import write_archive
from tests.support.environment import say

if TYPE_CHECKING:
    from collections.abc import Sequence

_WITHIN = 300.0
_POLL = 0.01
_NETWORK = """\
import torch


class Network(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
"""
_HANDLER = """\
from ts.torch_handler.base_handler import BaseHandler


class Handler(BaseHandler):
    pass
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """One start."""

    model: str
    """Empty for all of them at once."""
    round: int
    seconds: float
    """From the start to the answer that everything is ready."""
    cpu: float
    """CPU seconds of all processes until then."""


def run_ready(*, rounds: int, models: int) -> dict[str, Any]:
    """Start `models` models together and each alone, `rounds` times; the first is not measured."""
    program = serve_digits().with_name("hatch-mar")
    with tempfile.TemporaryDirectory(prefix="hatch-mar-benchmark-") as scratch:
        archives = [_write(Path(scratch), f"model-{number}") for number in range(models)]
        _start(program, archives, "", -1)
        together, alone = [], []
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            together.append(_start(program, archives, "", number))
            alone += [_start(program, [each], each.stem, number) for each in archives]
    return {"rounds": rounds, "models": models, "together": together, "alone": alone}


def _write(directory: Path, name: str) -> Path:
    """Write the archive of an eager model with weights of its own."""
    import torch

    weights = io.BytesIO()
    network = torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)
    )
    torch.save(network.state_dict(), weights)
    files = {
        "handler.py": _HANDLER.encode(),
        "network.py": _NETWORK.encode(),
        "weights.pt": weights.getvalue(),
        "model-config.yaml": b"minWorkers: 1\nmaxWorkers: 1\n",
    }
    manifest = Manifest(
        model_name=name,
        model_version="1.0",
        handler="handler.py",
        model_file="network.py",
        serialized_file="weights.pt",
        config_file="model-config.yaml",
    )
    plan = Plan(
        name=name,
        version="1.0",
        manifest=manifest,
        members=tuple(Member(member, data) for member, data in files.items()),
        runtime="eager",
    )
    path = directory / f"{name}.mar"
    write_archive(plan, path)
    return path


def _start(program: Path, archives: Sequence[Path], model: str, number: int) -> Ready:
    port = free_port()
    others = [f"--{name}-port={free_port()}" for name in ("management", "metrics")]
    command = [str(program), "serve", *map(str, archives), "--port", str(port), *others]
    with started(command) as server:
        deadline = time.perf_counter() + _WITHIN
        while not _is_ready(port):
            if time.perf_counter() > deadline or server.process.poll() is not None:
                sys.exit(server.output.read_text(errors="replace")[-4000:] + "\nnot ready")
            time.sleep(_POLL)
        seconds = time.perf_counter() - server.at
        return Ready(model=model, round=number, seconds=seconds, cpu=server.cpu())


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
