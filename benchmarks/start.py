"""From the start to the first correct answer of the sample, and the memory that takes.

Both are compared with a Python script that imports torch, loads the model and predicts once.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import await_answer
from benchmarks.peers.archive_servers import serve_digits
from benchmarks.processes import Started, free_port, started
from tests.support.environment import ROOT, say

SAMPLE = ROOT / "sample_project"
IMAGE = SAMPLE / "examples" / "seven.png"
DIGIT = 7
SCRIPT = Path(__file__).with_name("apps") / "digits_script.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of one of the two."""

    what: str
    round: int
    """-1 is the unmeasured first one, which compiles Python files and fills the page cache."""
    seconds: float
    pss: float
    """MB of the whole process tree after the answer."""
    processes: int


def run_start(*, rounds: int) -> dict[str, Any]:
    """Start the script and `serve-digits` in turn, `rounds` times each."""
    program = serve_digits()
    starts: list[Start] = []
    for number in range(-1, rounds):
        say(f"start {number + 1} of {rounds}" if number >= 0 else "first start, not measured")
        starts += [_start_script(program.with_name("python"), number), _serve(program, number)]
    return {"rounds": rounds, "starts": [start for start in starts if start.round >= 0]}


def _serve(program: Path, number: int) -> Start:
    port = free_port()
    with started([str(program), "--port", str(port)]) as server:
        at, answer = await_answer(server, port, "/predictions/digits", IMAGE.read_bytes())
        digit = json.loads(answer)["digit"]
        return _measured("serve-digits", number, server, at, digit)


def _start_script(python: Path, number: int) -> Start:
    with tempfile.TemporaryDirectory(prefix="hatch-mar-benchmark-") as scratch:
        sample = shutil.copytree(SAMPLE, Path(scratch) / "sample")
        at = time.perf_counter()
        process = subprocess.Popen(
            [str(python), str(SCRIPT), str(sample), str(IMAGE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with process:
            assert process.stdout is not None
            digit = int(process.stdout.readline())
            script = Started(process, Path(scratch), at)
            return _measured("script", number, script, time.perf_counter(), digit)


def _measured(what: str, number: int, run: Started, at: float, digit: int) -> Start:
    if digit != DIGIT:
        sys.exit(f"{what} takes the picture of a {DIGIT} for a {digit}")
    return Start(
        what=what,
        round=number,
        seconds=at - run.at,
        pss=run.pss(),
        processes=len(run.tree()),
    )
