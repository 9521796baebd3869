"""A running server in a process of its own, as a user starts it.

    with start_runner(str(mar)) as runner:
        httpx.post(f"{runner.url}/predictions/digits", content=image)

Ports are the system's choice (`--port 0`), read back from the line that the server prints. The
context ends with every process of the server's session gone, whatever the test did.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LISTENING = re.compile(r"^listening: (?P<doors>.*)$", re.MULTILINE)
_READY_TIMEOUT = 120.0
_STOP_TIMEOUT = 20.0


@dataclass(slots=True, kw_only=True)
class Runner:
    """One server process and what it printed."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""
    """Of the inference port, without a trailing slash; empty if the server never listened."""
    management_url: str = ""
    """Empty where management was not asked for."""
    metrics_url: str = ""

    def output(self) -> str:
        """Return all that the server and its workers wrote so far, stdout and stderr as one."""
        return self.log.read_text(errors="replace")

    def exited(self) -> int | None:
        """Return the exit status, None while the server runs."""
        return self.process.poll()

    def wait_ready(self, timeout: float = _READY_TIMEOUT) -> None:
        """Return once `/readyz` says yes or the server has exited.

        Raises:
            TimeoutError: neither within `timeout` seconds; the message carries the output.
        """
        deadline = time.monotonic() + timeout
        while self.exited() is None:
            self._read_addresses()
            if self.url and _says_ready(self.url):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready after {timeout} s:\n{self.output()}")
            time.sleep(0.02)
        self._read_addresses()

    def wait_listening(self, timeout: float = _READY_TIMEOUT) -> None:
        """Return once the server has printed its addresses or has exited, ready or not.

        Raises:
            TimeoutError: neither within `timeout` seconds; the message carries the output.
        """
        deadline = time.monotonic() + timeout
        while self.exited() is None and not self._read_addresses():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not listening after {timeout} s:\n{self.output()}")
            time.sleep(0.02)

    def wait_output(self, text: str, timeout: float = _READY_TIMEOUT) -> None:
        """Return once `text` was printed.

        Raises:
            TimeoutError: it was not within `timeout` seconds, or the server has exited without it.
        """
        deadline = time.monotonic() + timeout
        while text not in self.output():
            if self.exited() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"{text!r} was not printed:\n{self.output()}")
            time.sleep(0.01)

    def stop(self, signum: int = signal.SIGTERM, timeout: float = _STOP_TIMEOUT) -> int:
        """Send `signum` and return the exit status; negative where a signal ended the process.

        Raises:
            TimeoutError: the server is still there after `timeout` seconds.
        """
        with suppress(ProcessLookupError):
            self.process.send_signal(signum)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"still running {timeout} s later:\n{self.output()}") from error

    def _read_addresses(self) -> bool:
        found = _LISTENING.search(self.output())
        if found is None:
            return False
        doors = dict(door.split(" ", 1) for door in found["doors"].split(", "))
        self.url = doors["inference"]
        self.management_url = doors.get("management", "")
        self.metrics_url = doors.get("metrics", "")
        return True


def await_file(path: Path, timeout: float = _READY_TIMEOUT) -> None:
    """Return once a handler has made `path`.

    Raises:
        TimeoutError: it has not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path}: never made")
        time.sleep(0.005)


def _says_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def start_runner(
    *args: str,
    argv: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
    cwd: Path | None = None,
    wait: str = "ready",
) -> Iterator[Runner]:
    """Run `python -m hatch_mar serve ARGS...` until the block ends.

    Args:
        args: what follows `serve`; `--port 0` is added unless a `--port` is among them.
        argv: another command to start, such as `["venv/bin/serve-digits"]`, before `args`.
        env: variables on top of this process's own.
        python: interpreter for `-m hatch_mar serve`.
        cwd: working directory of the server.
        wait: `ready`, `listening`, or `no` to return at once.

    A server that exits is no error here: look at `runner.exited()` and `runner.output()`.
    """
    command = [*(argv or (python, "-m", "hatch_mar", "serve")), *args]
    if not any(arg.startswith("--port") for arg in args):
        command += ["--port", "0"]
    with tempfile.TemporaryDirectory(prefix="hatch-mar-runner-") as scratch:
        log = Path(scratch) / "output.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        runner = Runner(process=process, log=log)
        try:
            if wait == "ready":
                runner.wait_ready()
            elif wait == "listening":
                runner.wait_listening()
            yield runner
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the server politely, then everything that is left of its session."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
