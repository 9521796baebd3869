"""One worker slot: a place for a worker process, which is started, watched and replaced.

starting    no process: one is about to be started, perhaps after a pause
loading     a process is loading the model
ready       it answers (called `busy` while it holds requests)
stopping    it answers what it holds, then leaves
dead        no process, and none will come
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from hatch_mar import errors
from hatch_mar.errors import ModelError, WorkerStartError
from hatch_mar.model.protocol import DeviceReport
from hatch_mar.serve.backoff import backoff
from hatch_mar.serve.frames import ChannelError, Frame, Kind, decode_json, encode_json
from hatch_mar.serve.health import WorkerHealth
from hatch_mar.serve.process import Exit, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.serve.batching.jobs import Seat
    from hatch_mar.serve.devices.discovery import Device
    from hatch_mar.serve.devices.placement import Group
    from hatch_mar.serve.launch import Launch
    from hatch_mar.serve.shared import SharedMemory

logger = logging.getLogger("hatch_mar.serve")


class State(StrEnum):
    """Where a slot is in its life."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"
    DEAD = "dead"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.LOADING, State.DEAD}),
    State.LOADING: frozenset({State.READY, State.STARTING, State.STOPPING, State.DEAD}),
    State.READY: frozenset({State.STARTING, State.STOPPING, State.DEAD}),
    State.STOPPING: frozenset({State.DEAD}),
    State.DEAD: frozenset(),
}


class Crew(Protocol):
    """Whoever owns the slots."""

    def on_start(self, slot: Slot) -> None:
        """Hear that a process is about to be started; see to it that the slot has a device.

        Raises:
            ModelError: there is none.
        """
        ...

    def on_ready(self, slot: Slot) -> Seat:
        """Hear that the slot's process can answer; return where it sits."""
        ...

    def on_replies(self, seat: Seat, payload: memoryview) -> None:
        """Take a REPLIES frame."""
        ...

    def on_pieces(self, seat: Seat, payload: memoryview) -> None:
        """Take a PIECES frame."""
        ...

    def on_samples(self, samples: list[dict[str, Any]]) -> None:
        """Take what a handler measured."""
        ...

    def on_report(self, slot: Slot, ran_out: int) -> None:
        """Hear that `slot.report` is new, and that memory did not suffice `ran_out` times since."""
        ...

    def on_device_fault(self, slot: Slot, fault: str, *, loading: bool) -> None:
        """Hear that CUDA's context or device failed (`fault`), perhaps while the model loaded."""
        ...

    def on_lost(self, seat: Seat, started: int, end: Exit) -> None:
        """Hear that the process of a seat is gone, `started` requests after its start."""
        ...

    def on_dead(self, slot: Slot) -> None:
        """Hear that the slot will have no process any more."""
        ...


class Slot:
    """A slot and its process, if it has one."""

    def __init__(self, number: int, launch: Launch, crew: Crew, *, devices: Group = ()) -> None:
        """Make a slot without a process; `number` is the worker's id in `describe`."""
        self.number = number
        self.devices = devices
        """The GPUs that are reserved for it; none on the CPU."""
        self.state = State.STARTING
        self.seat: Seat | None = None
        self.deaths = 0
        self.reason = ""
        """Why the last process ended, if it was not asked to."""
        self.traceback = ""
        """The handler's own, where there was one."""
        self.started_at = ""
        self.load_seconds = 0.0
        self.report: DeviceReport | None = None
        """What the process said of its device last."""
        self.forward: dict[str, Any] | None = None
        """How the process runs the model, if that has a section `cuda`."""
        self.asked_to_leave = False
        self.batches = 1
        """How many batches the process may have begun at once."""
        loop = asyncio.get_running_loop()
        self.loaded: asyncio.Future[None] = loop.create_future()
        """Done when the first process is ready, or has failed: that is final."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the slot is dead."""
        self._loop = loop
        self._launch = launch
        self._crew = crew
        self._process: WorkerProcess | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._spawned = 0.0
        self._failure: dict[str, str] = {}
        self._pauses = backoff()
        self._trouble_since: float | None = None

    @property
    def device(self) -> Device | None:
        """The GPU, or the first of several."""
        return self.devices[0] if self.devices else None

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        return None if self._process is None else self._process.pid

    @property
    def answers(self) -> bool:
        """Whether the process can answer."""
        return self.state is State.READY

    def memory(self) -> int:
        """Return the process's resident memory in bytes."""
        return 0 if self._process is None else self._process.memory()

    def own_memory(self) -> int:
        """Return the bytes that another such process would take of the machine's memory."""
        return 0 if self._process is None else self._process.own_memory()

    def core_seconds(self) -> float:
        """Return for how long the process has computed."""
        return 0.0 if self._process is None else self._process.core_seconds()

    def health(self) -> WorkerHealth:
        """Say how the slot is."""
        busy = self.answers and self.seat is not None and bool(self.seat.held)
        return WorkerHealth(
            id=self.number,
            pid=self.pid,
            state="busy" if busy else str(self.state),
            device="cpu" if self.device is None else str(self.device),
            deaths=self.deaths,
            loaded=self.loaded.done() and self.loaded.exception() is None,
            reason=self.reason,
        )

    def explain(self) -> str:
        """Say in one line why the last process ended, with what its traceback ends in."""
        last = self.traceback.strip().rpartition("\n")[2].strip()
        return self.reason if last in self.reason else f"{self.reason} ({last})"

    def start(self) -> None:
        """Start a process, which loads the model."""
        self._timer = None
        self._failure = {}
        self.seat = self.report = None
        try:
            self._crew.on_start(self)
        except ModelError as error:
            self._fail_start(str(error))
            return
        launch = self._launch
        self._spawned = time.monotonic()
        self.started_at = datetime.now().astimezone().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        try:
            with launch.output(self.number) as streams:
                self._process = WorkerProcess(
                    python=launch.python,
                    directory=launch.directory,
                    environ=launch.environ,
                    listener=self,
                    ranks=launch.ranks,
                    streams=streams,
                )
        except OSError as error:
            self._fail_start(f"the worker could not be started: {error}")
            return
        self._move(State.LOADING)
        options = launch.options
        if self.loaded.done():
            options = {**options, "check_examples": False}
        self._process.send(encode_json(Kind.LOAD, options))
        self._timer = self._loop.call_later(launch.startup_timeout, self._on_startup_timeout)

    def move(self, devices: Group, launch: Launch) -> None:
        """Start the next process on other devices."""
        self.devices, self._launch = devices, launch

    def send(self, data: bytes, memories: Sequence[SharedMemory] = ()) -> None:
        """Send a frame to the process, and the memory that it speaks of."""
        if self._process is not None:
            self._process.send(data, memories)

    def take_shared(self, size: int) -> memoryview:
        """Return the memory that a frame from the process speaks of; see `FrameReader`."""
        if self._process is None:
            raise ChannelError("there is no process that could share memory")
        return self._process.take_shared(size)

    def pause(self) -> None:
        """Read nothing from the process for now."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        """Read from the process again."""
        if self._process is not None:
            self._process.resume()

    def kill(self, reason: str = "") -> None:
        """End the process at once; it counts as dead, unless it was stopping, and is replaced."""
        if self._process is not None:
            self._failure = self._failure or {"message": reason}
            self._process.kill()

    def stop(self, grace: float) -> None:
        """Let the process answer what it holds and leave; kill it after `grace` seconds."""
        self.asked_to_leave = True
        if self.state in {State.STOPPING, State.DEAD}:
            return
        self._cancel_timer()
        if self._process is None:
            self._die()
            return
        if self.state is State.LOADING or grace <= 0:
            self._move(State.STOPPING)
            self.kill()
            return
        self._move(State.STOPPING)
        self._process.stop()
        self._timer = self._loop.call_later(grace, self.kill)

    def on_frame(self, frame: Frame) -> None:
        """Take what the process says."""
        if frame.kind is Kind.REPLIES:
            if self.seat is not None:
                self._crew.on_replies(self.seat, frame.payload)
        elif frame.kind is Kind.PIECES:
            if self.seat is not None:
                self._crew.on_pieces(self.seat, frame.payload)
        elif frame.kind is Kind.SAMPLES:
            self._crew.on_samples(decode_json(frame.payload))
        elif frame.kind is Kind.DEVICE:
            self._take_report(decode_json(frame.payload))
        elif frame.kind is Kind.FAILED:
            # Of a group whose ranks fail one after the other, the first one knows why.
            self._failure = self._failure or decode_json(frame.payload)
        elif frame.kind is Kind.LOADED and self.state is State.LOADING:
            self._on_loaded(decode_json(frame.payload))

    def on_exit(self, end: Exit) -> None:
        """Hear how the process ended; start another one unless it was asked to end."""
        process, seat = self._process, self.seat
        assert process is not None
        self._process = self.seat = None
        self._cancel_timer()
        if self.state is State.STOPPING:
            if seat is not None:
                self._crew.on_lost(seat, process.started, end)
            self._die()
            return
        self._note_death(process.pid, end)
        fault = self._failure.get("fault", "")
        if fault:
            self._crew.on_device_fault(self, fault, loading=self.state is State.LOADING)
        if seat is not None:
            self._crew.on_lost(seat, process.started, end)
        # What is wrong with a device is not the model's fault: it may load on another one.
        if self.loaded.done() or (fault == "device" and len(self.devices) == 1):
            self._plan_restart()
        else:
            self._die()

    def _take_report(self, value: dict[str, Any]) -> None:
        before = 0 if self.report is None else self.report.out_of_memory
        self.report = DeviceReport.from_dict(value)
        if self.seat is not None:
            self.seat.cap = self.report.batch_cap
        self._crew.on_report(self, self.report.out_of_memory - before)

    def _on_loaded(self, value: dict[str, Any]) -> None:
        self._cancel_timer()
        self.forward = value.get("cuda")
        self.batches = value.get("batches", 1)
        self.load_seconds = time.monotonic() - self._spawned
        self._pauses = backoff()
        self._trouble_since = None
        self._move(State.READY)
        self.seat = self._crew.on_ready(self)
        if value.get("device"):
            self._take_report(value["device"])
        if not self.loaded.done():
            self.loaded.set_result(None)

    def _on_startup_timeout(self) -> None:
        self.kill(f"not loaded within startupTimeout={self._launch.startup_timeout:g} seconds")

    def _note_death(self, pid: int, end: Exit) -> None:
        """Put into words why the process ended; log it, unless it is raised from `register`."""
        self.deaths += 1
        self.reason = self._failure.get("message") or str(end)
        self.traceback = self._failure.get("traceback", "")
        if not self.loaded.done():
            return
        logger.error(
            "%s: worker %d (pid %d) died while %s: %s%s",
            *(self._launch.model, self.number, pid, self.state, self.reason),
            "\n" + self.traceback if self.traceback else "",
        )

    def _fail_start(self, reason: str) -> None:
        self.deaths += 1
        self.reason = reason
        if self.loaded.done():
            logger.error("%s: worker %d: %s", self._launch.model, self.number, reason)
            self._plan_restart()
        else:
            self._die()

    def _plan_restart(self) -> None:
        now = time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = now
        if now - self._trouble_since > self._launch.retry_timeout:
            self._die()
            return
        if self.state is not State.STARTING:
            self._move(State.STARTING)
        self._timer = self._loop.call_later(next(self._pauses), self.start)

    def _die(self) -> None:
        self._move(State.DEAD)
        self._crew.on_dead(self)
        if not self.loaded.done():
            self.loaded.set_exception(self._make_error())
            # Nobody waits for the others once one of them has failed.
            self.loaded.exception()
        self.ended.set_result(None)

    def _make_error(self) -> ModelError:
        """Make the exception that the worker met, under its own name where it is one of ours."""
        kind = getattr(errors, self._failure.get("type", ""), WorkerStartError)
        reason = self.reason or "it was stopped while it was loading"
        if self.deaths and not self._failure:
            reason = f"the worker died while loading: {reason}"
        return kind(f"{self._launch.model}: {reason}", traceback=self.traceback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _move(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"worker {self.number}: from {self.state} to {state}")
        self.state = state
