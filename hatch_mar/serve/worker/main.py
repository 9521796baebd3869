"""The worker process: loads one model, then answers batches in its main thread.

The door starts `python -m hatch_mar.serve.worker.main SOCKET_FD COUNTER_FD DOOR_PID` in the model's
run directory. Imports are few on purpose: what is imported here delays every model's first answer.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import socket
import sys
import traceback
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import HatchMarError
from hatch_mar.serve.allocation import keep_freed_memory
from hatch_mar.serve.frames import Frame, FrameReader, Kind, decode_json, encode_json, receive
from hatch_mar.serve.worker.loop import DeviceLostError, Loop
from hatch_mar.serve.worker_logs import set_up_logging, tell_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hatch_mar.model.protocol import Servable

_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def load(value: dict[str, Any]) -> Servable:
    """Load and warm the model that the door's LOAD frame describes; check its examples if told."""
    # Imported late, so that whatever is wrong with it reaches the door as a FAILED frame.
    from hatch_mar.model.loading import load as load_model  # noqa: PLC0415
    from hatch_mar.model.protocol import LoadOptions  # noqa: PLC0415

    check_examples, text = value.pop("check_examples"), value.pop("config_yaml")
    if text:
        import yaml  # noqa: PLC0415 - for the few configs that JSON cannot hold

        value["config"] = yaml.safe_load(text)
    servable: Servable = load_model(LoadOptions(**value))
    servable.warm()
    if check_examples:
        servable.check_examples()
    return servable


def describe_failure(error: BaseException) -> dict[str, str]:
    """Put a failed load into words: a line for the operator, and the handler's own traceback.

    An error of ours has one only if the handler has raised: where we did is nobody's business.
    `fault` is `device` or `context` where CUDA failed, and else empty.
    """
    from hatch_mar.model.faults import classify  # noqa: PLC0415 - as in `load`

    own, fault = isinstance(error, HatchMarError), classify(error)
    return {
        "fault": fault.name.lower() if fault.spoils_process else "",
        "type": type(error).__name__,
        "message": str(error) if own else f"{type(error).__name__}: {error}",
        "traceback": (
            getattr(error, "traceback", "") if own else "".join(traceback.format_exception(error))
        ),
    }


def describe_device_fault(fault: str) -> dict[str, str]:
    """Put into words why a worker leaves whose `Servable.device_fault` is `fault`."""
    kind, _, reason = fault.partition(": ")
    return {"message": f"its CUDA {kind} failed: {reason}", "fault": kind}


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


def choose_loop(mode: str, servable: Servable) -> Callable[..., Loop]:
    """Return what makes the loop that serves as the config wants it: `plain` for nearly all."""
    if mode == "rounds":
        from hatch_mar.serve.worker.rounds import RoundsLoop  # noqa: PLC0415

        return RoundsLoop
    if mode == "overlapped" and servable.can_overlap:
        from hatch_mar.serve.worker.overlapped import OverlappedLoop  # noqa: PLC0415 - and with it asyncio

        return OverlappedLoop
    stages = servable.take_apart() if mode == "plain" else None
    if stages is not None:
        from hatch_mar.serve.worker.pipelined import PipelinedLoop  # noqa: PLC0415 - for GPUs alone

        return partial(PipelinedLoop, stages=stages)
    return Loop


def await_load(sock: socket.socket, reader: FrameReader) -> dict[str, Any]:
    """Wait for the LOAD frame."""
    frames: list[Frame] = []
    while not frames:
        frames = receive(sock, reader)
    value: dict[str, Any] = decode_json(frames[0].payload)
    return value


def serve(
    sock: socket.socket,
    counter: memoryview,
    loader: Callable[[dict[str, Any]], Servable] = load,
) -> int:
    """Load the model, tell the door, answer until it is enough; return the exit code."""
    reader = FrameReader()
    value = await_load(sock, reader)
    batch_size, mode = value["batch_size"], value.pop("mode")
    loop: Loop | None = None
    try:
        servable = loader(value)
        if not servable.device_lost:
            make_loop = choose_loop(mode, servable)
            loop = make_loop(sock, reader, counter, servable, batch_size=batch_size)
    except BaseException as error:  # noqa: BLE001 - also a handler that calls sys.exit
        sock.sendall(encode_json(Kind.FAILED, describe_failure(error)))
        return 1
    if loop is None:  # it was warmed, or asked its examples
        sock.sendall(encode_json(Kind.FAILED, describe_device_fault(servable.device_fault)))
        return 1
    # The modules of a framework are hundreds of thousands of objects that will not die: collecting
    # around them would stop the loop for tens of milliseconds at a time.
    gc.freeze()
    report = servable.report_device()
    told = {
        "device": None if report is None else asdict(report),
        "cuda": servable.describe_forward(),
        "batches": loop.batches,
    }
    sock.sendall(encode_json(Kind.LOADED, told))
    try:
        tell_requests(loop.list_at_hand)
        loop.run()
    except (EOFError, ConnectionError):
        return 0
    except DeviceLostError:
        sock.sendall(encode_json(Kind.FAILED, describe_device_fault(servable.device_fault)))
        return 1
    return 0


def prepare_process(parent: int) -> None:
    """Make this process fit to run handlers, for as long as `parent` lives."""
    # The door decides when to stop: a terminal's Ctrl-C and a service manager's SIGTERM reach every
    # process of the group. Handlers, unlike SIG_IGN, are not inherited by programs a model starts.
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    spare_children()
    die_with_door(parent)
    keep_freed_memory()
    # What a handler prints is worth reading when it is printed, also through a pipe.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    set_up_logging()


def main(arguments: Sequence[str]) -> int:
    """Run the worker that the door started."""
    socket_fd, counter_fd, door = map(int, arguments)
    prepare_process(door)
    with socket.socket(fileno=socket_fd) as sock, mmap.mmap(counter_fd, mmap.PAGESIZE) as shared:
        sock.set_inheritable(False)
        os.close(counter_fd)
        with memoryview(shared).cast("Q") as counter:
            return serve(sock, counter)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
