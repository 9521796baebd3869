"""The worker process: loads one model, then answers batches in its main thread.

The door starts `python -m hatch_mar.serve.worker SOCKET_FD COUNTER_FD DOOR_PID` in the model's run
directory. Imports are few on purpose: what is imported here delays every model's first answer.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import mmap
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import HatchMarError
from hatch_mar.serve.channel import Batch, decode_requests, encode_replies
from hatch_mar.serve.frames import (
    ChannelError,
    Frame,
    FrameReader,
    Kind,
    decode_json,
    encode_json,
    receive,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.protocol import Measured, Request, Servable

FLUSH_SECONDS = 0.0003
"""How long a reply may wait for company while the worker has more to do."""
_QUICK_SECONDS = 0.0001
"""Only replies of batches that have all been quicker than this lately wait for company at all."""
_FORGET = 0.99
_SHIP_SECONDS = 0.05
"""How long the handler's measurements are gathered before they are sent."""
_PATIENCE = 0.00025
"""If the last pause was shorter than this many seconds, the worker looks out for the next request
for as long before it sleeps: waking a sleeping core takes time on both sides, most of all on a
virtual machine. A worker with less to do sleeps at once."""
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DeviceLostError(Exception):
    """The process cannot use its device any more; another one can."""


class Loop:
    """Takes what the door sends, answers it in batches, sends the replies."""

    def __init__(
        self,
        sock: socket.socket,
        reader: FrameReader,
        counter: memoryview,
        servable: Servable,
        *,
        batch_size: int,
    ) -> None:
        """Answer with `servable`; `counter[0]`, which the door reads, counts the requests begun."""
        self._sock = sock
        # Not `select.select`: the door's number for the socket, which is ours too, may be too high.
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        self._reader = reader
        self._counter = counter
        self._servable = servable
        self._batch_size = batch_size
        self._held: deque[tuple[int, Request]] = deque()
        self._replies: list[Batch] = []
        self._slowest = 1.0
        self._stopping = False
        self._pause = 0.0
        self._measured: list[Measured] = []
        self._shipped = 0.0

    def run(self) -> None:
        """Answer until the door says STOP, and then what is held still.

        Raises:
            DeviceLostError: the device is beyond repair; what was answered has been sent.
            EOFError: the door is gone.
            ChannelError: the door makes no sense.
        """
        while self._held or not self._stopping:
            if not self._held:
                self._flush()
                began = time.monotonic()
                self._wait_for_door(began)
                self._receive()
                self._pause = time.monotonic() - began
            elif len(self._held) < self._batch_size:
                self._receive(socket.MSG_DONTWAIT)
            if self._held:
                self._answer(self._take())
        self._flush()
        self._ship()

    def _wait_for_door(self, began: float) -> None:
        """Look out for the door, if it was quick lately; then send what the handler measured."""
        while self._pause < _PATIENCE and time.monotonic() - began < _PATIENCE:
            if self._poller.poll(0):
                return
            os.sched_yield()  # whoever has work to do goes first
        self._measured += self._servable.drain_metrics()
        if self._measured and not self._poller.poll(_SHIP_SECONDS * 1000):
            self._ship()

    def _receive(self, flags: int = 0) -> None:
        try:
            frames = receive(self._sock, self._reader, flags)
        except BlockingIOError:
            return
        for frame in frames:
            if frame.kind is Kind.PREDICT:
                self._held.extend(decode_requests(frame.payload))
            elif frame.kind is Kind.STOP:
                self._stopping = True
            else:
                raise ChannelError(f"the door sent {frame.kind.name}")

    def _take(self) -> list[tuple[int, Request]]:
        """Return the next batch: what is held, at most `batch_size`; a describe goes alone."""
        held = self._held
        batch = [held.popleft()]
        if not batch[0][1].describe:
            while held and len(batch) < self._batch_size and not held[0][1].describe:
                batch.append(held.popleft())
        return batch

    def _answer(self, batch: list[tuple[int, Request]]) -> None:
        self._counter[0] += len(batch)
        requests = [request for _, request in batch]
        started = time.monotonic()
        try:
            responses = self._servable.predict(requests)
        except BaseException:
            # A handler that ends the process takes nobody else's answer with it.
            self._flush()
            raise
        ended = time.monotonic()
        seconds = ended - started
        self._replies.append(Batch([number for number, _ in batch], responses, started, seconds))
        # A finished reply must not wait for a batch that takes long. How long the next one takes
        # nobody knows, so only a handler that has been quick for hundreds of batches is trusted.
        self._slowest = max(seconds, self._slowest * _FORGET)
        if self._slowest > _QUICK_SECONDS or ended - self._replies[0].started > FLUSH_SECONDS:
            self._flush()
            if ended - self._shipped > _SHIP_SECONDS:
                self._ship()
        if self._servable.device_lost:
            self._flush()
            raise DeviceLostError

    def _flush(self) -> None:
        if self._replies:
            for data in encode_replies(self._replies):
                self._sock.sendall(data)
            self._replies.clear()

    def _ship(self) -> None:
        self._measured += self._servable.drain_metrics()
        if self._measured:
            samples = [measured.as_dict() for measured in self._measured]
            self._sock.sendall(encode_json(Kind.SAMPLES, samples))
            self._measured.clear()
        self._shipped = time.monotonic()


def load(value: dict[str, Any]) -> Servable:
    """Load the model that the door's LOAD frame describes, and check its examples if it says so."""
    # Imported late, so that whatever is wrong with it reaches the door as a FAILED frame.
    from hatch_mar.model.loading import load as load_model  # noqa: PLC0415
    from hatch_mar.model.protocol import LoadOptions  # noqa: PLC0415

    check_examples, text = value.pop("check_examples"), value.pop("config_yaml")
    if text:
        import yaml  # noqa: PLC0415 - for the few configs that JSON cannot hold

        value["config"] = yaml.safe_load(text)
    servable: Servable = load_model(LoadOptions(**value))
    if check_examples:
        servable.check_examples()
    return servable


def describe_failure(error: BaseException) -> dict[str, str]:
    """Put a failed load into words: a line for the operator, and the handler's own traceback.

    An error of ours has one only if the handler has raised: where we did is nobody's business.
    """
    own = isinstance(error, HatchMarError)
    return {
        "type": type(error).__name__,
        "message": str(error) if own else f"{type(error).__name__}: {error}",
        "traceback": (
            getattr(error, "traceback", "") if own else "".join(traceback.format_exception(error))
        ),
    }


def die_with_door(door: int) -> None:
    """Have the kernel kill this process when the door dies, however it dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != door:
        sys.exit("the door is gone")


def spare_children() -> None:
    """Let signals end what the handler forks: `multiprocessing` relies on it.

    A signal that comes before the child is ready for it has to wait.
    """
    masks: list[set[Any]] = []

    def hold() -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS))

    def let_go() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop())

    def begin() -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        let_go()

    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=begin)


def await_load(sock: socket.socket, reader: FrameReader) -> dict[str, Any]:
    """Wait for the LOAD frame."""
    frames: list[Frame] = []
    while not frames:
        frames = receive(sock, reader)
    value: dict[str, Any] = decode_json(frames[0].payload)
    return value


def serve(sock: socket.socket, counter: memoryview) -> int:
    """Load the model, tell the door, answer until it is enough; return the exit code."""
    reader = FrameReader()
    value = await_load(sock, reader)
    batch_size = value["batch_size"]
    try:
        servable = load(value)
    except BaseException as error:  # noqa: BLE001 - also a handler that calls sys.exit
        sock.sendall(encode_json(Kind.FAILED, describe_failure(error)))
        return 1
    # The modules of a framework are hundreds of thousands of objects that will not die: collecting
    # around them would stop the loop for tens of milliseconds at a time.
    gc.freeze()
    sock.sendall(encode_json(Kind.LOADED, {}))
    try:
        Loop(sock, reader, counter, servable, batch_size=batch_size).run()
    except (EOFError, ConnectionError):
        return 0
    except DeviceLostError:
        sock.sendall(encode_json(Kind.FAILED, {"message": "its CUDA device failed"}))
        return 1
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the worker that the door started."""
    socket_fd, counter_fd, door = map(int, arguments)
    # The door decides when to stop: a terminal's Ctrl-C and a service manager's SIGTERM reach every
    # process of the group. Handlers, unlike SIG_IGN, are not inherited by programs a model starts.
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    spare_children()
    die_with_door(door)
    # What a handler prints is worth reading when it is printed, also through a pipe.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    with socket.socket(fileno=socket_fd) as sock, mmap.mmap(counter_fd, mmap.PAGESIZE) as shared:
        sock.set_inheritable(False)
        os.close(counter_fd)
        with memoryview(shared).cast("Q") as counter:
            return serve(sock, counter)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
