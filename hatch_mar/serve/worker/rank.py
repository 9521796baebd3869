"""One process of a worker group: a model in several parts, of which this one holds one.

Rank 0 leads: it speaks with the door as any worker does, and before it calls its handler with a
batch it sends that to the others, who call theirs with it too. Their answers are dropped; what they
compute for rank 0 goes through the handler's own process groups.

The leader and each follower are joined by a socket pair that carries the frames of
`hatch_mar.serve.frames`: LOAD and PREDICT and STOP one way, LOADED the other. torch has no part in
it: a model may sit idle for days, and whether and when to call `init_process_group` is the
handler's decision. Who dies is noticed by the launcher: see `hatch_mar.serve.worker.group`.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
import time
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from typing import TYPE_CHECKING, Any, NoReturn

from hatch_mar.errors import ModelError
from hatch_mar.model.golden import check_example
from hatch_mar.serve.channel import decode_requests, encode_requests
from hatch_mar.serve.frames import FrameReader, Kind, encode_frame, encode_json, receive
from hatch_mar.serve.packing import pack_request
from hatch_mar.serve.worker.main import await_load, describe_failure, load, prepare_process, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.protocol import (
        DeviceReport,
        Measured,
        OnPiece,
        Request,
        Response,
        Servable,
    )

FIRST_PID = 1
"""Where the shared page holds the process id of rank 0, and behind it the others': 0 once a rank
has left in good order. Before it is the counter that every worker has."""

_LAST_WORD_SECONDS = 5.0
"""How long a rank that has lost another one leaves it to the launcher to end the group."""


class Inherited:
    """A file descriptor that goes along when it is sent to a process that is being spawned."""

    def __init__(self, fd: int) -> None:
        """Own `fd`."""
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        """Have `multiprocessing` duplicate it for the process that is being made."""
        return _receive_descriptor, (DupFd(self.fd),)


def _receive_descriptor(duplicate: Any) -> Inherited:  # noqa: ANN401 - multiprocessing's own
    return Inherited(duplicate.detach())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """What the processes of a group are started with."""

    channel: Inherited
    """To the door."""
    page: Inherited
    """Shared with the door and the launcher."""
    launcher: int
    """Its process id."""
    leading: Sequence[Inherited]
    """The leader's end of the socket pair of each follower, by rank; of rank 0 there is none."""
    following: Sequence[Inherited]
    """The followers' ends."""

    def run(self) -> None:
        """Load, answer until it is enough, and return; the process ends at once if it fails."""
        rank = int(os.environ["RANK"])
        prepare_process(self.launcher)
        with mmap.mmap(self.page.fd, mmap.PAGESIZE) as shared, memoryview(shared).cast("Q") as page:
            page[FIRST_PID + rank] = os.getpid()
            try:
                code = self._lead(page) if rank == 0 else self._follow(rank)
            except SystemExit as error:  # a handler's wish, and not what anybody else wished for
                code = error.code if isinstance(error.code, int) and error.code else 1
            if code:
                _leave(code)
            page[FIRST_PID + rank] = 0

    def _lead(self, page: memoryview) -> int:
        for end in self.following:
            os.close(end.fd)
        followers = [socket.socket(fileno=end.fd) for end in self.leading]
        with socket.socket(fileno=self.channel.fd) as channel:
            code = serve(channel, page, loader=lambda value: lead(value, followers))
            if not code:
                for follower in followers:
                    follower.sendall(encode_frame(Kind.STOP))
        return code

    def _follow(self, rank: int) -> int:
        for end in self.leading:
            os.close(end.fd)
        for number, end in enumerate(self.following, start=1):
            if number != rank:
                os.close(end.fd)
        leader = socket.socket(fileno=self.following[rank - 1].fd)
        with socket.socket(fileno=self.channel.fd) as channel, leader:
            reader = FrameReader()
            try:
                servable = load(take_own_gpu(await_load(leader, reader)))
            except BaseException as error:  # noqa: BLE001 - also a handler that calls sys.exit
                told = describe_failure(error)
                told["message"] = f"rank {rank}: {told['message']}"
                channel.sendall(encode_json(Kind.FAILED, told))
                return 1
            channel.close()  # from now on it is the leader's alone
            return follow(leader, reader, servable)


def lead(value: dict[str, Any], followers: Sequence[socket.socket]) -> Servable:
    """Load rank 0's part of the model while the followers load theirs; return the whole.

    Raises:
        HatchMarError: it cannot be loaded, or a golden example gets another answer.
    """
    check_examples, broadcast = value["check_examples"], value.pop("broadcast")
    value["check_examples"] = False
    for follower in followers:
        follower.sendall(encode_json(Kind.LOAD, value))
    part = load(take_own_gpu(value))
    for rank, follower in enumerate(followers, start=1):
        _await_loaded(rank, follower)
    whole = Leader(part, followers if broadcast else ())
    if check_examples:
        for example in value["examples"]:
            check_example(whole, example, value["model_dir"])
    return whole


class Leader:
    """A model in several parts as the worker's loop sees it: the `Servable` of rank 0."""

    last_traceback = ""

    def __init__(self, part: Servable, followers: Sequence[socket.socket]) -> None:
        """Answer with `part`, while `followers` answer with theirs."""
        self._part = part
        self._followers = followers

    @property
    def can_overlap(self) -> bool:
        """No: batches that overlap would come to the ranks in different orders."""
        return False

    @property
    def device_lost(self) -> bool:
        """Whether this process must be replaced, and the group with it."""
        return self._part.device_lost

    @property
    def device_fault(self) -> str:
        """Why it must be: rank 0's device alone is known here."""
        return self._part.device_fault

    @property
    def batch_cap(self) -> int:
        """The most requests that fit into rank 0's memory."""
        return self._part.batch_cap

    def report_device(self) -> DeviceReport | None:
        """Say how rank 0 gets along with its device."""
        return self._part.report_device()

    def predict(self, requests: Sequence[Request]) -> list[Response]:
        """Answer `requests` as one batch, in every rank; a describe is for rank 0 alone."""
        if self._followers and not requests[0].describe:
            data = encode_batch(requests)
            try:
                for follower in self._followers:
                    follower.sendall(data)
            except OSError:
                await_end()
                raise SystemExit(1) from None
        return self._part.predict(requests)

    async def predict_overlapped(self, requests: Sequence[Request]) -> list[Response]:
        """Answer `requests`, beside nothing else."""
        return self.predict(requests)

    def warm(self) -> None:
        """Do nothing: the ranks of a group would have to warm in step."""

    def describe_forward(self) -> dict[str, Any] | None:
        """Say how rank 0 runs its part."""
        return self._part.describe_forward()

    def take_apart(self) -> None:
        """Have no stages: the ranks compute in step."""

    def check_examples(self) -> None:
        """Do nothing: `lead` has had them checked."""

    def listen(self, on_piece: OnPiece) -> None:
        """Hand every intermediate answer to `on_piece`."""
        self._part.listen(on_piece)

    def drain_metrics(self) -> Sequence[Measured]:
        """Return what rank 0's handler measured; the others' would count everything again."""
        return self._part.drain_metrics()


def encode_batch(requests: Sequence[Request]) -> bytes:
    """Make frames of one batch: each request has the number of those that follow it."""
    last = len(requests) - 1
    packed = [pack_request(last - index, request) for index, request in enumerate(requests)]
    return b"".join(encode_requests(packed))


def follow(leader: socket.socket, reader: FrameReader, servable: Servable) -> int:
    """Do as the leader does until it says STOP; return the exit code."""
    servable.listen(lambda _: None)
    leader.sendall(encode_frame(Kind.LOADED))
    batch: list[Request] = []
    while True:
        for frame in receive(leader, reader):
            if frame.kind is Kind.STOP:
                return 0
            for number, request in decode_requests(frame.payload):
                batch.append(request)
                if not number:
                    servable.predict(batch)
                    servable.drain_metrics()
                    batch = []
        if servable.device_lost:
            return 1


def take_own_gpu(value: dict[str, Any]) -> dict[str, Any]:
    """Return the options of this rank: those of the group, with the GPU that is its own."""
    gpu_id = None if value["gpu_id"] is None else int(os.environ["LOCAL_RANK"])
    return {**value, "gpu_id": gpu_id}


def await_end() -> None:
    """Wait to be ended: a rank is gone, and how it ended is for the launcher to say."""
    time.sleep(_LAST_WORD_SECONDS)


def _await_loaded(rank: int, follower: socket.socket) -> None:
    reader = FrameReader()
    try:
        while not receive(follower, reader):
            pass
    except (EOFError, ConnectionError):
        await_end()
        raise ModelError(f"rank {rank} is gone") from None


def _leave(code: int) -> NoReturn:
    """End the process now: the launcher ends the others, and nobody waits for threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
