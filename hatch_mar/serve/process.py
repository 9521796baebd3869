"""One worker process as the door sees it: its socket, the shared counter, its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hatch_mar.serve import shared
from hatch_mar.serve.frames import ChannelError, Frame, FrameReader, Kind, encode_frame, receive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hatch_mar.serve.output import Streams
    from hatch_mar.serve.shared import SharedMemory

logger = logging.getLogger("hatch_mar.serve")

WORKER = "hatch_mar.serve.worker"
"""The package whose modules are what a worker process runs."""
_ROOT = Path(__file__).parents[2]
"""The directory that holds our package: workers must find the same one."""
_HANG_UP_SECONDS = 0.5
"""How long a process may live on after it has closed its socket."""
_FAREWELL_SECONDS = 2.0
"""The same where it was asked to leave: what it registered with `atexit` may take a moment, but a
thread that the handler forgot would keep it for ever."""
_POLL_SECONDS = 0.02
_OWN_MEMORY = ("RssAnon", "VmSwap")
"""Rows of /proc/PID/status: memory that is no file's."""


class Listener(Protocol):
    """Whoever started the process."""

    def on_frame(self, frame: Frame) -> None:
        """Take what the process says."""
        ...

    def on_exit(self, end: Exit) -> None:
        """Hear that the process is no more. It is called once, and last."""
        ...


class Exit:
    """How a process ended."""

    __slots__ = ("code", "out_of_memory")

    def __init__(self, code: int, *, out_of_memory: bool) -> None:
        """Keep the `code` as `subprocess` gives it: minus the signal, if it was one."""
        self.code = code
        self.out_of_memory = out_of_memory

    def __str__(self) -> str:
        """Say it in words."""
        if self.out_of_memory:
            return "killed by the kernel: out of memory"
        if self.code < 0:
            try:
                name = signal.Signals(-self.code).name
            except ValueError:
                name = str(-self.code)
            return f"killed by signal {name}"
        return f"exit code {self.code}"


class WorkerProcess:
    """A running worker. Everything happens on the event loop of the thread that made it."""

    def __init__(
        self,
        *,
        python: str,
        directory: Path,
        environ: Mapping[str, str],
        listener: Listener,
        ranks: int = 0,
        streams: Streams = (None, None),
    ) -> None:
        """Start it, in `directory`: with `ranks`, the launcher of so many. It waits for its LOAD.

        `streams` are its stdout and stderr.

        Raises:
            OSError: it could not be started.
        """
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._reader = FrameReader()
        self._backlog: deque[tuple[memoryview, Sequence[SharedMemory]]] = deque()
        self._killed = False
        self._stopping = False
        self._oom_kills = _count_oom_kills()
        self._sock, theirs = socket.socketpair()
        self._sock.setblocking(False)
        with theirs, _shared_page() as page, contextlib.ExitStack() as undo:
            undo.callback(self._sock.close)
            self._map = undo.enter_context(mmap.mmap(page.fileno(), mmap.PAGESIZE))
            self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [
                    *(python, "-P", "-m", f"{WORKER}.{'group' if ranks else 'main'}"),
                    *(str(theirs.fileno()), str(page.fileno()), str(os.getpid())),
                    *([str(ranks)] if ranks else []),
                ],
                cwd=directory,
                env=_make_environ(environ),
                stdin=subprocess.DEVNULL,
                stdout=streams[0],
                stderr=streams[1],
                pass_fds=(theirs.fileno(), page.fileno()),
                # A group of its own: what the handler starts can be ended with it.
                process_group=0,
            )
            undo.pop_all()
        self._counter = memoryview(self._map).cast("Q")
        self._ranks = ranks
        self._pidfd = _open_pidfd(self.pid)
        self._loop.add_reader(self._sock, self._on_readable)
        if self._pidfd is None:
            self._loop.call_later(_POLL_SECONDS, self._poll)
        else:
            self._loop.add_reader(self._pidfd, self._on_end)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def started(self) -> int:
        """How many requests it has begun since its start; it counts them in shared memory."""
        return self._counter[0]

    def send(self, data: bytes, memories: Sequence[SharedMemory] = ()) -> None:
        """Send a frame, now or as soon as the socket has room, and the memory that it speaks of.

        To a dead process: nothing.
        """
        if self._backlog:
            self._backlog.append((memoryview(data), memories))
            return
        sent = self._try_send(data, memories)
        if sent < len(data):
            self._backlog.append((memoryview(data)[sent:], () if sent else memories))
            self._loop.add_writer(self._sock, self._on_writable)

    def take_shared(self, size: int) -> memoryview:
        """Return the memory that a frame from the process speaks of; see `FrameReader`."""
        return self._reader.take_shared(size)

    def pause(self) -> None:
        """Read nothing that it says for now; soon it can say no more."""
        self._loop.remove_reader(self._sock)

    def resume(self) -> None:
        """Listen again."""
        if self._popen.returncode is None:
            self._loop.add_reader(self._sock, self._on_readable)

    def stop(self) -> None:
        """Let it answer what it holds, and leave."""
        self._stopping = True
        self.send(encode_frame(Kind.STOP))

    def kill(self) -> None:
        """End it at once (SIGKILL), with the processes it started; `on_exit` follows."""
        if self._popen.returncode is None:
            self._killed = True
            self._kill_group()

    def memory(self) -> int:
        """Return its resident memory in bytes, its ranks' included; 0 if that cannot be told."""
        return sum(map(_memory, (self.pid, *self._counter[1 : 1 + self._ranks])))

    def own_memory(self) -> int:
        """Return the bytes that another one like it would take: what it maps is there already."""
        return sum(map(read_own_memory, (self.pid, *self._counter[1 : 1 + self._ranks])))

    def core_seconds(self) -> float:
        """Return for how long it has computed, its threads and ranks added up."""
        return sum(map(read_core_seconds, (self.pid, *self._counter[1 : 1 + self._ranks])))

    def _try_send(self, data: bytes | memoryview, memories: Sequence[SharedMemory]) -> int:
        try:
            return shared.send(self._sock, data, memories)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:
                return 0  # too much is on its way already
            # It is dead or dying; `on_exit` tells, and what was sent is answered from there.
            return len(data)

    def _on_writable(self) -> None:
        while self._backlog:
            data, memories = self._backlog[0]
            sent = self._try_send(data, memories)
            if sent < len(data):
                self._backlog[0] = data[sent:], () if sent else memories
                return
            self._backlog.popleft()
        self._loop.remove_writer(self._sock)

    def _on_readable(self) -> None:
        if not self._receive():
            self._loop.remove_reader(self._sock)
            patience = _FAREWELL_SECONDS if self._stopping else _HANG_UP_SECONDS
            self._loop.call_later(patience, self.kill)

    def _receive(self) -> bool:
        """Hand on what came; False if nothing will come any more."""
        try:
            for frame in receive(self._sock, self._reader):
                self._listener.on_frame(frame)
        except BlockingIOError:
            pass
        except ChannelError as error:
            logger.warning("worker %d: %s", self.pid, error)
            self.kill()
            return False
        except (EOFError, ConnectionError):
            return False
        return True

    def _poll(self) -> None:
        if self._popen.poll() is None:
            self._loop.call_later(_POLL_SECONDS, self._poll)
        else:
            self._on_end()

    def _on_end(self) -> None:
        """Reap it, hear its last words, close everything, tell the listener."""
        self._kill_group()
        code = self._popen.wait()
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        try:
            with contextlib.suppress(OSError, ChannelError, EOFError):
                while True:
                    for frame in receive(self._sock, self._reader):
                        self._listener.on_frame(frame)
        finally:
            self._sock.close()
            self._reader.close()
            self._backlog.clear()
            oom = code == 128 + signal.SIGKILL or (code == -signal.SIGKILL and self._was_oom())
            self._listener.on_exit(Exit(code, out_of_memory=oom))
            self._counter.release()
            self._map.close()

    def _was_oom(self) -> bool:
        """Whether SIGKILL came from the kernel: not from us, and it has killed for memory since."""
        return not self._killed and _count_oom_kills() > self._oom_kills

    def _kill_group(self) -> None:
        # Before it is reaped, so that its number cannot belong to anybody else yet.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _memory(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * mmap.PAGESIZE


def read_own_memory(pid: int) -> int:
    """Return the bytes of a process that are no file's; 0 if that cannot be told."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    rows = (line.partition(":") for line in lines)
    return sum(int(row.split()[0]) * 1024 for name, _, row in rows if name in _OWN_MEMORY)


def read_core_seconds(pid: int) -> float:
    """Return for how long the threads of a process have computed; 0 if that cannot be told."""
    try:
        # The name of the program, in brackets, may hold anything.
        columns = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")


def _make_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Let the worker find our package, also when we run from a source tree."""
    result = dict(environ)
    if str(_ROOT) not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        paths = [path for path in (environ.get("PYTHONPATH"), str(_ROOT)) if path]
        result["PYTHONPATH"] = os.pathsep.join(paths)
    return result


def _shared_page() -> io.FileIO:
    """Make a page of memory that has a file descriptor and no name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("hatch-mar")
    else:
        descriptor, path = tempfile.mkstemp()
        Path(path).unlink()
    page = io.FileIO(descriptor, "r+")
    page.truncate(mmap.PAGESIZE)
    return page


def _open_pidfd(pid: int) -> int | None:
    """Return a descriptor that becomes readable when the process ends, where there are such."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _count_oom_kills() -> int:
    """Count the processes that this machine's kernel has killed for want of memory."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
