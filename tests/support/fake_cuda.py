"""A CUDA device made of CPU tensors, for `hatch_mar.model.cuda` without a GPU.

It is as lazy as it may be: a copy is made when somebody waits for an event behind it, not sooner.
Who reads too early reads rubbish, and who writes to memory that a copy is about to read or write
breaks the discipline. What it was asked is in `asked`, in order; `faults` make it fail.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from hatch_mar.model.cuda.layer import Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

RUBBISH = 113
"""What is in memory that nothing was copied to yet: it fits every type of number."""


class DisciplineError(AssertionError):
    """Our code did what a device punishes with wrong answers, now and then."""


class Asked(NamedTuple):
    """One thing that the device was asked."""

    what: str
    """A method of `Layer`, or `record`, `wait` and `done` of an event, or `replay`."""
    stream: str
    """Of which stream; empty where it is about none."""


def out_of_memory() -> Exception:
    """Return what torch raises where memory is short."""
    error: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return error


def device_assert() -> Exception:
    """Return what torch raises after a kernel's assertion failed, for whatever it is asked then."""
    return RuntimeError("CUDA error: device-side assert triggered")


class FakeStream:
    """Work that is put off."""

    def __init__(self, layer: FakeLayer, name: str) -> None:
        """Belong to `layer`."""
        self.name = name
        self.length = 0
        self._layer = layer
        self._work: dict[int, Callable[[], None]] = {}

    def ask(self, work: Callable[[], None]) -> None:
        """Put off `work`."""
        self.length += 1
        self._work[self.length] = work

    def run_until(self, mark: int) -> None:
        """Do what comes first."""
        for number in sorted(number for number in self._work if number <= mark):
            self._work.pop(number)()

    def synchronize(self) -> None:
        """See `Stream.synchronize`."""
        with self._layer.asking("synchronize", self.name):
            self.run_until(self.length)


class FakeEvent:
    """A mark in a stream."""

    def __init__(self, layer: FakeLayer) -> None:
        """Mark nothing."""
        self._layer = layer
        self._stream: FakeStream | None = None
        self._mark = 0

    def record(self, stream: FakeStream) -> None:
        """See `Event.record`."""
        with self._layer.asking("record", stream.name):
            self._stream, self._mark = stream, stream.length

    def wait(self, stream: FakeStream) -> None:
        """See `Event.wait`."""
        with self._layer.asking("wait", stream.name):
            self._reach()

    def query(self) -> bool:
        """See `Event.query`: never done by itself."""
        return self._stream is None

    def synchronize(self) -> None:
        """See `Event.synchronize`."""
        stream = self._stream
        with self._layer.asking("done", "" if stream is None else stream.name):
            self._reach()

    def _reach(self) -> None:
        if self._stream is None:
            raise DisciplineError("waited for an event that was never recorded")
        self._stream.run_until(self._mark)


class FakeGraph:
    """Runs again what was captured."""

    def __init__(self, layer: FakeLayer, run: Callable[[], Any]) -> None:
        """Capture `run`, whose output keeps its memory."""
        self._layer = layer
        self._run = run
        self.output = run()

    def replay(self) -> None:
        """See `Graph.replay`."""
        with self._layer.asking("replay", self._layer.current().name):
            _write(self.output, self._run())


class _Upload:
    """What is known of one uploaded tensor."""

    def __init__(self, stream: str, waits: int) -> None:
        self.stream = stream
        self.waits = waits
        """How often the host had waited for the device when it was made."""
        self.users: set[str] = set()


class FakeLayer:
    """See `hatch_mar.model.cuda.layer.Layer`.

    `faults` says which call fails: `{("upload", 2): error}` is the second upload. After an error
    that is in `deadly` every further call fails with it, as after a device's failed assertion.
    """

    def __init__(
        self,
        *,
        faults: Mapping[tuple[str, int], Exception] | None = None,
        total: int = 1 << 30,
    ) -> None:
        """Be a device with `total` bytes."""
        self.device = torch.device("cpu")
        self.name = "Fake H100"
        self.capability = (9, 0)
        self.asked: list[Asked] = []
        self.faults = dict(faults or {})
        self.deadly: set[int] = set()
        self.flaws: list[str] = []
        """Breaches of discipline that could not be raised where they were made."""
        self.total = total
        self.allocated = 0
        self.peak = 0
        self._counts: dict[str, int] = {}
        self._dead: Exception | None = None
        self._lock = threading.RLock()
        self._here = threading.local()
        self._all = [FakeStream(self, "default")]
        self._uploads: dict[int, _Upload] = {}

    def kill_at(self, what: str, number: int) -> None:
        """Have the `number`th call of `what` fail an assertion, and every call after it."""
        error = device_assert()
        self.faults[what, number] = error
        self.deadly.add(id(error))

    def list_asked(self, *what: str) -> list[Asked]:
        """Return what was asked of the kinds `what`, in order."""
        return [asked for asked in self.asked if asked.what in what]

    def pin(self, like: torch.Tensor) -> torch.Tensor:
        """See `Layer.pin`."""
        with self.asking("pin"), torch.inference_mode(mode=False):  # else it has no version
            return torch.full(like.shape, RUBBISH, dtype=like.dtype)

    def holds(self, tensor: torch.Tensor) -> bool:
        """See `Layer.holds`: uploads are all that it holds."""
        return id(tensor) in self._uploads

    def upload(self, host: torch.Tensor) -> torch.Tensor:
        """See `Layer.upload`."""
        stream = self.current()
        with self.asking("upload", stream.name):
            device = torch.full_like(host, RUBBISH)
            version = _version(host)
            upload = _Upload(stream.name, self._waits())
            self._uploads[id(device)] = upload
            self._take(device.nbytes)
            end = weakref.finalize(device, self._free, id(device), upload, device.nbytes)
            end.atexit = False

            def copy() -> None:
                if _version(host) != version:
                    raise DisciplineError("host memory was written to before it was uploaded")
                device.copy_(host)

            stream.ask(copy)
            return device

    def download(self, tensor: torch.Tensor, into: torch.Tensor) -> None:
        """See `Layer.download`."""
        stream = self.current()
        with self.asking("download", stream.name):
            before, version = tensor.clone(), into._version

            def copy() -> None:
                if not _same(before, tensor):
                    raise DisciplineError("a tensor was written to before it was downloaded")
                if into._version != version:
                    raise DisciplineError("host memory was written to before its download")
                into.copy_(tensor)

            stream.ask(copy)

    def keep(self, tensor: torch.Tensor, stream: FakeStream) -> None:
        """See `Layer.keep`."""
        with self.asking("keep", stream.name):
            if id(tensor) in self._uploads:
                self._uploads[id(tensor)].users.add(stream.name)

    def stream(self) -> FakeStream:
        """See `Layer.stream`: they are named `stream1`, `stream2`, ..."""
        with self._lock:
            self._all.append(FakeStream(self, f"stream{len(self._all)}"))
            return self._all[-1]

    def current(self) -> FakeStream:
        """See `Layer.current`."""
        stream: FakeStream = getattr(self._here, "stream", self._all[0])
        return stream

    def event(self) -> FakeEvent:
        """See `Layer.event`."""
        return FakeEvent(self)

    @contextmanager
    def on(self, stream: FakeStream) -> Iterator[None]:
        """See `Layer.on`."""
        before = self.current()
        self._here.stream = stream
        try:
            yield
        finally:
            self._here.stream = before

    def capture(self, run: Callable[[], Any]) -> FakeGraph:
        """See `Layer.capture`."""
        with self.asking("capture"):
            return FakeGraph(self, run)

    def synchronize(self) -> None:
        """See `Layer.synchronize`."""
        with self.asking("synchronize"):
            for stream in self._all:
                stream.run_until(stream.length)

    def empty_cache(self) -> None:
        """See `Layer.empty_cache`."""
        with self.asking("empty_cache"):
            pass

    def memory(self) -> Memory:
        """See `Layer.memory`: uploads are all that takes any."""
        return Memory(total=self.total, allocated=self.allocated, peak=self.peak)

    def reset_peak(self) -> None:
        """See `Layer.reset_peak`."""
        self.peak = self.allocated

    @contextmanager
    def asking(self, what: str, stream: str = "") -> Iterator[None]:
        """Write down what is asked, one thing at a time; raise the fault that is due."""
        with self._lock:
            self.asked.append(Asked(what, stream))
            self._counts[what] = number = self._counts.get(what, 0) + 1
            error = self._dead or self.faults.get((what, number))
            if error is not None:
                if id(error) in self.deadly:
                    self._dead = error
                raise error.with_traceback(None)
            yield

    def _take(self, size: int) -> None:
        self.allocated += size
        self.peak = max(self.peak, self.allocated)

    def _free(self, ident: int, upload: _Upload, size: int) -> None:
        del self._uploads[ident]
        self.allocated -= size
        if not upload.users - {upload.stream} and self._waits() == upload.waits:
            self.flaws.append(f"an upload of {upload.stream} was given up before it was used")

    def _waits(self) -> int:
        return self._counts.get("done", 0) + self._counts.get("synchronize", 0)


def _version(tensor: torch.Tensor) -> int:
    """Return how often `tensor` was written to; one of the inference mode does not know."""
    return 0 if tensor.is_inference() else tensor._version


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    bits = (tensor.detach().reshape(-1).view(torch.uint8) for tensor in (one, other))
    same: bool = torch.equal(*bits)
    return same


def _write(target: Any, source: Any) -> None:
    """Copy `source`, tensors in tuples, lists and dicts, to the memory of `target`."""
    if isinstance(target, torch.Tensor):
        target.copy_(source)
    elif isinstance(target, dict):
        for key, value in target.items():
            _write(value, source[key])
    elif isinstance(target, tuple | list):
        for each, other in zip(target, source, strict=True):
            _write(each, other)
