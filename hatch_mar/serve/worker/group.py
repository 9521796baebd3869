"""The launcher of a worker group: one worker to the door, several processes to the model.

The door starts `python -m hatch_mar.serve.worker.group SOCKET_FD COUNTER_FD DOOR_PID RANKS` where
it would start a worker. torch's elastic launcher makes the ranks out of it, and the launcher
watches them: when one ends before it was asked to, the launcher ends the others and then itself, in
the same way. So the door sees a worker that dies as its rank died, and replaces it.

Only rank 0 speaks with the door (`hatch_mar.serve.worker.rank`); the launcher does once, to say
which rank it was.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import socket
import sys
import time
import uuid
from contextlib import suppress
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, NoReturn

from hatch_mar.serve.frames import Kind, encode_json
from hatch_mar.serve.process import Exit
from hatch_mar.serve.worker.main import describe_failure, die_with_door
from hatch_mar.serve.worker.rank import FIRST_PID, Inherited, Rank

if TYPE_CHECKING:
    from collections.abc import Sequence

_REAP_SECONDS = 5.0
"""How long a process that was killed may take to be gone; a driver may hold it up."""
_POLL_SECONDS = 0.005


class Watch:
    """Ends the group when a rank does."""

    def __init__(self, page: memoryview, ranks: int, channel: socket.socket) -> None:
        """Look after those whose process ids are in `page`."""
        self._page = page
        self._ranks = ranks
        self._channel = channel

    def on_child(self, *_: object) -> None:
        """Hear that some child has ended; return if it may."""
        ended = {rank: end for rank in range(self._ranks) if (end := self._look(rank)) is not None}
        if ended:
            # Who was killed is the cause, who has given up may be a consequence.
            rank = min(ended, key=lambda rank: (ended[rank] >= 0, rank))
            self._end(rank, ended[rank])

    def _look(self, rank: int) -> int | None:
        """Return how a rank has ended that should not have; None if all is well."""
        pid = self._page[FIRST_PID + rank]
        if not pid:
            return None
        try:
            # It stays there for torch's launcher to find.
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return 1
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def _end(self, rank: int, code: int) -> NoReturn:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # what follows is our own doing
        message = f"rank {rank} (pid {self._page[FIRST_PID + rank]}): "
        message += str(Exit(code, out_of_memory=False))
        print(f"hatch-mar: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the worker's log
        with suppress(OSError):
            frame = encode_json(Kind.FAILED, {"message": message})
            self._channel.send(frame, socket.MSG_DONTWAIT)
        self._kill_others()
        end_alike(code)

    def _kill_others(self) -> None:
        for pid in self._page[FIRST_PID : FIRST_PID + self._ranks]:
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        reap()


def reap() -> None:
    """Wait for every child, so that nobody else has to: who adopts them may be no good parent.

    One of them is the process that keeps the books of `multiprocessing`; it ends when we let go.
    """
    with suppress(Exception):
        books = resource_tracker.getfd()
        if books is not None:
            os.close(books)
    deadline = time.monotonic() + _REAP_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(_POLL_SECONDS)


def end_alike(code: int) -> NoReturn:
    """End this process as one has ended whose exit code, as `subprocess` gives it, is `code`."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # there is one of the rank, if any
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    os._exit(code if code > 0 else 1)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run the group that the door started."""
    socket_fd, counter_fd, door, ranks = map(int, arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # the door decides when to stop
    die_with_door(door)
    from hatch_mar.model.elastic import launch  # noqa: PLC0415 - it imports torch: first things first

    channel = socket.socket(fileno=socket_fd)
    pairs = [socket.socketpair() for _ in range(1, ranks)]
    group = Rank(
        channel=Inherited(socket_fd),
        page=Inherited(counter_fd),
        launcher=os.getpid(),
        leading=[Inherited(leader.fileno()) for leader, _ in pairs],
        following=[Inherited(follower.fileno()) for _, follower in pairs],
    )
    with mmap.mmap(counter_fd, mmap.PAGESIZE) as shared, memoryview(shared).cast("Q") as page:
        signal.signal(signal.SIGCHLD, Watch(page, ranks, channel).on_child)
        try:
            launch(group.run, ranks, run_id=f"hatch-mar-{uuid.uuid4().hex}")
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no group
            channel.sendall(encode_json(Kind.FAILED, describe_failure(error)))
            os._exit(1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    reap()
    os._exit(0)  # nothing is left to be done, and no book to be closed once more


if __name__ == "__main__":
    main(sys.argv[1:])
