"""From the start to the first answer of a model whose weights are in the cache already.

The archive names a safetensors file by its digest, and the first start, which is not measured, puts
that into the cache. A script that maps the same file and predicts is what it is compared with. What
the server's processes have read with `read` tells whether anybody hashed the weights again: what is
mapped does not count there.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import await_answer
from benchmarks.peers.archive_servers import serve_digits
from benchmarks.peers.python_servers import installed_versions
from benchmarks.processes import Started, free_port, started
from tests.support.environment import WORK, pip, run, say

if TYPE_CHECKING:
    from collections.abc import Iterator

APPS = Path(__file__).with_name("apps")
HOME = WORK / "benchmarks" / "warm-start"
WIDTH = 4096
ROW = json.dumps([0.5, -1.0, 2.25, 0.125])
PYPROJECT = """\
[build-system]
requires = ["hatchling", "hatch-mar"]
build-backend = "hatchling.build"

[project]
name = "stack"
version = "1.0"
dependencies = ["hatch-mar[serve]", "torch"]

[tool.mar]
handler = "base_handler"
model-file = "model.py"
extra-files = ["shape.json"]
weights = {{ source = "{source}", sha256 = "{sha256}" }}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """One start of one of the two."""

    what: str
    round: int
    """-1 is the first one, which fills the cache and is not measured."""
    seconds: float
    pss: float
    """MB of the whole process tree after the answer; of it, what is mapped counts too."""
    read_mb: float
    """What the tree has read, other than by mapping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where everything is."""

    python: Path
    project: Path
    weights: Path
    archive: Path
    cache: Path


def run_warm_start(*, rounds: int, size: int) -> dict[str, Any]:
    """Start the script and the server in turn, `rounds` times each; `size` is of the weights."""
    try:
        stage = prepare(size)
        starts = list(_start_in_turn(stage, rounds))
        installed = installed_versions(stage.python, ("hatch-mar", "torch", "safetensors"))
        return {
            "rounds": rounds,
            "size": stage.weights.stat().st_size,
            "versions": {"hatch-mar": installed},
            "starts": [start for start in starts if start.round >= 0],
        }
    finally:
        shutil.rmtree(HOME, ignore_errors=True)


def _start_in_turn(stage: Stage, rounds: int) -> Iterator[WarmStart]:
    for number in range(-1, rounds):
        say(f"start {number + 1} of {rounds}" if number >= 0 else "first start, not measured")
        pairs = [_start_script(stage, number), _serve(stage, number)]
        _compare(*(answer for _, answer in pairs))
        yield from (start for start, _ in pairs)


def prepare(size: int) -> Stage:
    """Make the weights, and build the archive that names them; the cache is empty."""
    python = serve_digits().with_name("python")
    pip(python, "install", "safetensors")
    shutil.rmtree(HOME, ignore_errors=True)
    project, weights = HOME / "project", HOME / "stack.safetensors"
    project.mkdir(parents=True)
    shutil.copy(APPS / "stack_model.py", project / "model.py")
    shape = {"width": WIDTH, "depth": max(1, size // (4 * WIDTH**2))}
    (project / "shape.json").write_text(json.dumps(shape))
    say(f"writing {size >> 20} MiB of weights")
    run(str(python), str(APPS / "stack_weights.py"), str(project), str(weights))
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    text = PYPROJECT.format(source=weights.as_uri(), sha256=digest)
    (project / "pyproject.toml").write_text(text)
    build = [str(python), "-m", "hatchling", "build", "-t", "mar", "-d", str(HOME / "dist")]
    subprocess.run(build, cwd=project, check=True, stdout=subprocess.DEVNULL)
    (archive,) = (HOME / "dist").glob("*.mar")
    return Stage(
        python=python, project=project, weights=weights, archive=archive, cache=HOME / "cache"
    )


def _serve(stage: Stage, number: int) -> tuple[WarmStart, list[float]]:
    port = free_port()
    command = [stage.python, "-m", "hatch_mar", "serve", stage.archive, "--port", port]
    environ = {"HATCH_MAR_CACHE_DIR": str(stage.cache)}
    with started([str(part) for part in command], environ=environ) as server:
        row = ROW.encode()
        at, answer = await_answer(server, port, "/predictions/stack", row, "application/json")
        return _measured("hatch-mar serve", number, server, at), json.loads(answer)


def _start_script(stage: Stage, number: int) -> tuple[WarmStart, list[float]]:
    at = time.perf_counter()
    process = subprocess.Popen(
        [str(stage.python), APPS / "stack_script.py", stage.project, stage.weights, ROW],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        answer = json.loads(process.stdout.readline())
        script = Started(process, HOME, at)
        return _measured("script", number, script, time.perf_counter()), answer


def _measured(what: str, number: int, run: Started, at: float) -> WarmStart:
    return WarmStart(
        what=what,
        round=number,
        seconds=at - run.at,
        pss=run.pss(),
        read_mb=sum(map(_read_by, run.tree())) / 1e6,
    )


def _read_by(pid: int) -> int:
    """Return the bytes that a process has asked `read` and its like for."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("rchar:"):
                return int(line.split()[1])
    return 0


def _compare(one: list[float], other: list[float]) -> None:
    close = (
        math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6) for a, b in zip(one, other, strict=True)
    )
    if not all(close):
        sys.exit(f"the script says {one}, the server {other}")
