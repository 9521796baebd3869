"""Downloading big weights from loopback, beside curl with sha256sum and the Hub's own client.

Every program is a child of `apps/measure.py`, which also waits until its output is on the disk. The
server is another process, and answers with `sendfile`. Before anything is timed, what each program
has left is hashed and compared. Ours and the shell's line verify the file, the Hub's client does
not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.environment import ROOT, WORK, make_environment, pip, pip_environ, run, say

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = WORK / "benchmarks" / "weights"
APPS = Path(__file__).with_name("apps")
CURL, OURS, HUB = "curl and sha256sum", "hatch-mar", "huggingface_hub"
PACKAGES = ("hatch-mar", "huggingface_hub", "urllib3")

OURS_SCRIPT = """
import sys
from pathlib import Path
from hatch_mar.weights.cache import Cache
from hatch_mar.weights.fetch import fetch
from hatch_mar.weights.reference import Reference
out, url, sha256, size = sys.argv[1:]
fetch(Reference(target="w", source=url, sha256=sha256, size=int(size)), Cache(Path(out)))
"""
HUB_SCRIPT = """
import sys
from huggingface_hub import hf_hub_download
hf_hub_download("org/model", "weights.bin", cache_dir=sys.argv[1])
"""
SHELL_SCRIPT = 'curl -sSf -o "$1/file" "$2" && echo "$3  $1/file" | sha256sum --check --status'


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One way to download the file."""

    name: str
    command: tuple[str, ...]
    """Its arguments are the directory for the output, the URL, the digest and the size."""
    output: str
    """Pattern of the file that it leaves in there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One run of a program."""

    program: str
    round: int
    seconds: float
    cpu: float
    peak_mb: float
    output_mb: float


def run_weights(*, rounds: int, size: int) -> dict[str, Any]:
    """Run every program once to check its output, then `rounds` times in a row that shifts.

    Args:
        rounds: How often each program is measured.
        size: Bytes of the file.
    """
    python = _environment()
    weights = _make_weights(size)
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    programs = _programs(python)
    downloads: list[Download] = []
    with _serving(weights) as site:
        for program in programs:
            say(f"{program.name}, not measured")
            _download(program, -1, site, sha256, size, check=True)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            shift = number % len(programs)
            downloads += [
                _download(program, number, site, sha256, size, check=False)
                for program in (*programs[shift:], *programs[:shift])
            ]
    weights.unlink()
    return {
        "rounds": rounds,
        "size": size,
        "versions": _versions(python),
        "downloads": downloads,
    }


@cache
def _environment() -> Path:
    """Build this checkout and install it beside the Hub's client."""
    python = make_environment(HOME / "environment")
    wheels = HOME / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    pip(python, "install", "build", "huggingface_hub")
    build = ("-m", "build", "--wheel", "--outdir", str(wheels), str(ROOT))
    run(str(python), *build, environ=pip_environ())
    (wheel,) = wheels.glob("*.whl")
    pip(python, "install", "--force-reinstall", "--no-deps", str(wheel))
    pip(python, "install", f"{wheel}[serve]")
    return python


def _versions(python: Path) -> dict[str, dict[str, str]]:
    code = f"import importlib.metadata as m; print(*(m.version(name) for name in {PACKAGES!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return {"weights": dict(zip(PACKAGES, done.stdout.split(), strict=True))}


def _make_weights(size: int) -> Path:
    path = HOME / "weights.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, 1 << 24):
            file.write(os.urandom(min(size - start, 1 << 24)))
        os.fsync(file.fileno())
    return path


def _programs(python: Path) -> tuple[Program, ...]:
    return (
        Program(name=CURL, command=("sh", "-c", SHELL_SCRIPT, "-"), output="file"),
        Program(name=OURS, command=(str(python), "-c", OURS_SCRIPT), output="sha256/??/*"),
        Program(name=HUB, command=(str(python), "-c", HUB_SCRIPT), output="models--*/blobs/*"),
    )


@contextmanager
def _serving(weights: Path) -> Iterator[str]:
    """Serve the file; yield the address."""
    command = [sys.executable, str(APPS / "file_site.py"), str(weights)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def _download(
    program: Program, number: int, site: str, sha256: str, size: int, *, check: bool
) -> Download:
    """Run `program`, and compare what it left if that is to be checked."""
    out, temporary = HOME / "out", HOME / "tmp"
    for directory in (out, temporary):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    url = f"{site}/org/model/resolve/main/weights.bin"
    arguments = (str(out), url, sha256, str(size))
    command = [sys.executable, str(APPS / "measure.py"), str(out), program.output]
    done = subprocess.run(
        [*command, *program.command, *arguments],
        env=_environ(site, temporary),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{program.name}: {done.stderr}")
    if check:
        (left,) = out.glob(program.output)
        with left.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                sys.exit(f"{program.name}: what it left is not what was served")
    shutil.rmtree(out)
    measured = json.loads(done.stdout)
    del measured["temporary_mb"]
    return Download(program=program.name, round=number, **measured)


def _environ(site: str, temporary: Path) -> dict[str, str]:
    """Return an environment in which the Hub is `site`, spoken to without its other protocol."""
    environ = {**os.environ, "TMPDIR": str(temporary), "NO_PROXY": "127.0.0.1"}
    environ |= {"HF_ENDPOINT": site, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(HOME / "hub")}
    return environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
