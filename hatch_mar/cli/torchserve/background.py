"""A server in the background: its pid file, its start, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PID_FILE = ".model_server.pid"
"""TorchServe's, in the system's temporary directory."""
PATIENCE = 60.0
"""Seconds that a server may take to stop."""
_POLL = 0.05
_LARGEST = 2**31 - 1
"""What a `pid_t` holds."""


class Background:
    """The one server that this user's temporary directory knows of."""

    def __init__(self, directory: Path | None = None) -> None:
        """Look into `directory`, by default the system's temporary one."""
        self.path = (directory or Path(tempfile.gettempdir())) / PID_FILE

    def is_running(self) -> bool:
        """Say whether there is a server; the file of one that died is removed."""
        pid = self._pid()
        if pid is not None and _is_alive(pid):
            return True
        if self.path.exists():
            say("Removing orphan pid file.")
            self.path.unlink(missing_ok=True)
        return False

    def start(self, arguments: Sequence[str]) -> int:
        """Start Python with `arguments` in a session of its own; return the exit status.

        As TorchServe's, the server keeps our stdout; unlike it, one that ends before it listens is
        a failure here.
        """
        reader, writer = os.pipe()
        process = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(writer,),
            env={**os.environ, STARTED_VARIABLE: str(writer)},
        )
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            if pipe.read(1):
                return 0
        return process.wait() or 1

    @contextmanager
    def here(self) -> Iterator[None]:
        """Be that server: the file names this process as long as the block lasts."""
        self.path.write_text(str(os.getpid()))
        try:
            yield
        finally:
            if self._pid() == os.getpid():
                self.path.unlink(missing_ok=True)

    def stop(self) -> int:
        """Stop the server, wait until it is gone, and return the exit status."""
        pid = self._pid()
        if pid is None:
            say("TorchServe is not currently running.")
            return 0
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            say("TorchServe already stopped.")
        except PermissionError:
            say(f"{self.path} names process {pid}, which is not yours to stop.")
            return 1
        else:
            end = time.monotonic() + PATIENCE
            while _is_alive(pid):
                if time.monotonic() > end:
                    say("Stopping TorchServe took too long.")
                    return 1
                time.sleep(_POLL)
            say("TorchServe has stopped.")
        self.path.unlink(missing_ok=True)
        return 0

    def _pid(self) -> int | None:
        """Return the process that the file names; None where it names none.

        Zero and below are no processes but groups of them: a signal would reach far more than one.
        """
        try:
            pid = int(self.path.read_text())
        except (OSError, ValueError):
            return None
        return pid if 0 < pid <= _LARGEST else None


STARTED_VARIABLE = "HATCH_MAR_STARTED_FD"


def tell_parent() -> None:
    """Let whoever started this process in the background go: the ports are ours."""
    descriptor = os.environ.pop(STARTED_VARIABLE, "")
    if descriptor.isdigit():
        with suppress(OSError), os.fdopen(int(descriptor), "wb") as pipe:
            pipe.write(b"!")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]
