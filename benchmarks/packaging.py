"""Building archives and wheels of big weights, beside the tools that one would use instead.

Every program is a child of `apps/measure.py`, which also waits until its output is on the disk.
Before anything is timed, each output is opened, and its weights compared with the original's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.environment import ROOT, WORK, make_environment, pip, pip_environ, run, say

if TYPE_CHECKING:
    from collections.abc import Callable

HOME = WORK / "benchmarks" / "packaging"
MEASURE = Path(__file__).with_name("apps") / "measure.py"
FLOATS, HALVES = "float32", "bfloat16"
SECRET_OF_ISAL = "import sys; sys.modules['isal'] = None; "
HATCHLING = "from hatchling.cli import hatchling; hatchling()"

MAKE_WEIGHTS = """
import sys, numpy
size, floats, halves = int(sys.argv[1]), sys.argv[2], sys.argv[3]
random = numpy.random.default_rng(0)
with open(floats, "wb") as whole, open(halves, "wb") as half:
    for start in range(0, size, 1 << 24):
        values = random.standard_normal(min(size - start, 1 << 24) // 4, dtype=numpy.float32)
        whole.write(values.tobytes())
        half.write((values.view(numpy.uint32) >> 16).astype(numpy.uint16).tobytes())
"""
"""Weights of a layer are normally distributed; bfloat16 is the upper half of float32."""

HANDLER = "def handle(data, context):\n    return data\n"
PROJECT = """\
[build-system]
requires = ["hatchling"{requires}]
build-backend = "hatchling.build"
[project]
name = "big"
version = "1.0"
dependencies = ["hatch-mar[serve]"]
"""
MODEL = """\
dynamic = ["scripts", "entry-points"]
[tool.hatch.build.hooks.mar]
[tool.mar]
handler = "handler.py:handle"
runtime = "custom"
archive.compression = "{compression}"
archive.enabled = {archive}
wheel.embed = "always"
"""
WEIGHTS = 'weights = "weights.bin"\n'
PLAIN = """\
[tool.hatch.build.targets.wheel]
bypass-selection = true
[tool.hatch.build.targets.wheel.force-include]
"handler.py" = "big/handler.py"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One way to pack something."""

    what: str
    command: Callable[[Path], list[str]]
    """The command, given the directory for its output."""
    output: str
    """Pattern of its output in there."""
    weights: str | None = None
    """Which weights must be found in the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a task: seconds, CPU seconds, and MB of memory, temporary files and output."""

    what: str
    round: int
    seconds: float
    cpu: float
    peak_mb: float
    temporary_mb: float
    output_mb: float


def run_packaging(*, rounds: int, size: int) -> dict[str, Any]:
    """Run every task once to check its output, then `rounds` times in a row that shifts.

    Args:
        rounds: How often each task is measured.
        size: Bytes of the float32 weights; those of bfloat16 are half as many.
    """
    python = packing_environment()
    weights = _make_weights(python, size)
    tasks = _tasks(python, weights)
    for task in tasks:
        say(f"{task.what}, not measured")
        run_task(task, -1, weights)
    runs: list[Run] = []
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        shift = number % len(tasks)
        runs += [run_task(task, number, None) for task in (*tasks[shift:], *tasks[:shift])]
    sizes = {name: path.stat().st_size for name, path in weights.items()}
    return {"rounds": rounds, "sizes": sizes, "versions": versions_of(python), "runs": runs}


@cache
def packing_environment() -> Path:
    """Build this checkout and install it beside hatchling and torch-model-archiver."""
    python = make_environment(HOME / "environment")
    wheels = HOME / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    pip(python, "install", "build", "hatch", "numpy", "torch-model-archiver==0.12.0")
    build = ("-m", "build", "--wheel", "--outdir", str(wheels), str(ROOT))
    run(str(python), *build, environ=pip_environ())
    (wheel,) = wheels.glob("*.whl")
    pip(python, "install", "--force-reinstall", "--no-deps", str(wheel))
    pip(python, "install", f"{wheel}[fast-deflate]")
    return python


def versions_of(python: Path) -> dict[str, dict[str, str]]:
    packages = ("hatch", "hatch-mar", "hatchling", "isal", "torch-model-archiver")
    code = f"import importlib.metadata as m; print(*(m.version(name) for name in {packages!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return {"packaging": dict(zip(packages, done.stdout.split(), strict=True))}


def _make_weights(python: Path, size: int) -> dict[str, Path]:
    weights = {name: HOME / f"{name}-{size}.bin" for name in (FLOATS, HALVES)}
    if not all(path.exists() for path in weights.values()):
        say(f"making {size} bytes of weights")
        made = {name: path.with_suffix(".new") for name, path in weights.items()}
        run(str(python), "-c", MAKE_WEIGHTS, str(size), str(made[FLOATS]), str(made[HALVES]))
        for name, path in weights.items():
            made[name].replace(path)
    return weights


def _tasks(python: Path, weights: dict[str, Path]) -> list[Task]:
    floats = weights[FLOATS]
    plain = PROJECT.format(requires="") + PLAIN
    force = plain + '"weights.bin" = "big/weights.bin"\n'
    tasks = [
        Task(
            what="cp and sha256sum",
            command=lambda out: [
                *("sh", "-c", 'cp "$1" "$2" && sha256sum "$2"', "-"),
                *(str(floats), str(out / "copy.bin")),
            ],
            output="copy.bin",
        ),
        _hatchling(python, "hatch-mar, .mar", "mar", model_project("mar"), floats, kind=FLOATS),
        Task(
            what="torch-model-archiver",
            command=lambda out: [
                *(str(python.with_name("torch-model-archiver")), "--model-name", "big"),
                *("--version", "1.0", "--export-path", str(out), "--serialized-file", str(floats)),
                *("--handler", str(make_project("handler", plain, None) / "handler.py")),
            ],
            output="big.mar",
            weights=FLOATS,
        ),
        _hatchling(
            python, "hatch-mar, wheel", "wheel", model_project("wheel"), floats, kind=FLOATS
        ),
        _hatchling(python, "hatchling, wheel", "wheel", force, floats, kind=FLOATS),
    ]
    for kind, path in weights.items():
        text = model_project("mar", compression="deflated")
        for library, before in (("zlib", SECRET_OF_ISAL), ("isal", "")):
            what = f"deflated, {kind}, {library}"
            tasks.append(_hatchling(python, what, "mar", text, path, kind=kind, before=before))
    return tasks


def model_project(target: str, *, compression: str = "stored", weights: str = WEIGHTS) -> str:
    archive = "true" if target == "mar" else "false"
    model = MODEL.format(compression=compression, archive=archive)
    return PROJECT.format(requires=', "hatch-mar"') + model + weights


def _hatchling(
    python: Path,
    what: str,
    target: str,
    pyproject: str,
    weights: Path | None,
    *,
    kind: str | None = None,
    before: str = "",
) -> Task:
    project = make_project(what, pyproject, weights)
    code = f"import os; os.chdir({str(project)!r}); {before}{HATCHLING}"
    return Task(
        what=what,
        command=lambda out: [str(python), "-c", code, "build", "-t", target, "-d", str(out)],
        output="*.mar" if target == "mar" else "*.whl",
        weights=kind,
    )


def make_project(name: str, pyproject: str, weights: Path | None) -> Path:
    project = HOME / "projects" / name.replace(", ", "-").replace(" ", "-").replace(".", "")
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir(parents=True)
    (project / "pyproject.toml").write_text(pyproject)
    (project / "handler.py").write_text(HANDLER)
    if weights is not None:
        (project / "weights.bin").hardlink_to(weights)
    return project


def run_task(task: Task, number: int, weights: dict[str, Path] | None) -> Run:
    """Run `task`, and compare what it packed if there are `weights` to compare with."""
    out, temporary = HOME / "out", HOME / "tmp"
    for directory in (out, temporary):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    command = [sys.executable, str(MEASURE), str(out), task.output, *task.command(out)]
    wheels = str(HOME / "wheels")
    environ = {**os.environ, "TMPDIR": str(temporary)}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's users compile at every start
    environ |= {"PIP_FIND_LINKS": wheels, "UV_FIND_LINKS": wheels}  # hatch's build environment
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{task.what}: {done.stderr}")
    if weights and task.weights:
        (packed,) = out.glob(task.output)
        _compare(task.what, packed, weights[task.weights])
    shutil.rmtree(out)
    return Run(what=task.what, round=number, **json.loads(done.stdout))


def _compare(what: str, packed: Path, weights: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        biggest = max(archive.infolist(), key=lambda info: info.file_size)
        with archive.open(biggest) as member:
            found = hashlib.file_digest(member, "sha256")
    with weights.open("rb") as file:
        if found.digest() != hashlib.file_digest(file, "sha256").digest():
            sys.exit(f"{what}: what is packed is not what was given")
