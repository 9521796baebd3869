"""Starting a server, knowing all its processes, what they use, and ending them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_WITHIN = 15.0


class Process(NamedTuple):
    """A process, by its id and by what it runs."""

    pid: int
    name: str


@dataclass(frozen=True, slots=True)
class Started:
    """A process started in a session of its own, and when."""

    process: subprocess.Popen[bytes]
    output: Path
    at: float
    """`time.perf_counter()` just before the start."""

    def tree(self) -> list[int]:
        """Return the ids of the process, its descendants and all else in its session."""
        parents = {}
        found = {self.process.pid}
        for pid, fields in _stats():
            parents[pid] = int(fields[1])
            if int(fields[3]) == self.process.pid:
                found.add(pid)
        grown = True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            found |= more
            grown = bool(more)
        return sorted(found)

    def pss(self) -> float:
        """Return the memory of the tree in MB: shared pages count once, split among sharers."""
        return sum(map(_pss, self.tree())) / 1024

    def cpu(self) -> float:
        """Return the CPU seconds that the tree has used, ended children included."""
        return sum(self.cpu_each().values())

    def cpu_each(self) -> dict[Process, float]:
        """Return the same of each process, in the order of their ids."""
        wanted = set(self.tree())
        return {
            Process(pid, _program(pid)): sum(map(int, fields[11:15])) / _TICKS
            for pid, fields in sorted(_stats())
            if pid in wanted
        }


@contextmanager
def started(
    command: Sequence[str], scratch: Path | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[Started]:
    """Run `command` in `scratch`, its output in a file, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="hatch-mar-benchmark-") as own:
        directory = scratch or Path(own)
        output = directory / "output.log"
        with output.open("wb") as sink:
            at = time.perf_counter()
            process = subprocess.Popen(
                command,
                cwd=directory,
                env={**os.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Started(process, output, at)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for stop in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, stop)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_WITHIN)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def busy_cpu() -> float:
    """Return the CPU seconds that the whole machine has been busy since it started."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / _TICKS


def _stats() -> Iterator[tuple[int, list[str]]]:
    """Yield each process's id and the fields of its `stat` after the name: state is the first."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                yield int(entry.name), (entry / "stat").read_text().rpartition(")")[2].split()


def _pss(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _program(pid: int) -> str:
    """Return what a process runs: a module, a script, or else the name of its program."""
    with suppress(OSError):
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if arguments[1:2] == ["-m"]:
            return arguments[2]
        scripts = (Path(one).name for one in arguments[:4] if one.endswith(".py"))
        return next(scripts, Path(arguments[0]).name)
    return "?"
