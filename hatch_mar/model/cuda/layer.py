"""All that our CUDA code asks of a device, in one protocol: `open_layer` gives the real thing.

Tests run the same code on `tests.support.fake_cuda.FakeLayer`, which has no GPU and is stricter.
Work on a device is asked for and done later, in the order of its stream. Who needs to know that it
is done records an event behind it. Tensors are host memory or device memory; what is copied between
the two asynchronously is in page-locked memory on the host's side.
"""

# ruff: noqa: ANN401 - tensors are torch's, which is imported for real devices only

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of a device, in bytes."""

    total: int
    allocated: int
    """What tensors of this process take now."""
    peak: int
    """The most they have taken since `reset_peak`."""


class Stream(Protocol):
    """Work of a device that is done in order."""

    def synchronize(self) -> None:
        """Wait for what was asked so far. Other threads run meanwhile."""
        ...


class Event(Protocol):
    """A mark behind some work of a stream; it may be recorded again once it is over."""

    def record(self, stream: Any) -> None:
        """Mark what `stream` was asked so far."""
        ...

    def wait(self, stream: Any) -> None:
        """Have what `stream` is asked from now on done after it. Returns at once."""
        ...

    def query(self) -> bool:
        """Tell whether it is done."""
        ...

    def synchronize(self) -> None:
        """Wait until it is done. Other threads run meanwhile.

        Raises:
            RuntimeError: the device failed, here or earlier.
        """
        ...


class Graph(Protocol):
    """Work that was recorded once, to be asked for in one piece."""

    output: Any
    """What `run` returned: the same memory after every replay, and not safe from the next one."""

    def replay(self) -> None:
        """Ask the current stream for the work again, on whatever is in its input by now."""
        ...


class Layer(Protocol):
    """A device. Streams are current per thread; a thread begins with the default stream."""

    device: Any
    """The `torch.device`."""
    name: str
    """As its maker calls it: `NVIDIA H100 80GB HBM3`."""
    capability: tuple[int, int]

    def pin(self, like: Any) -> Any:
        """Return page-locked host memory of the shape and type of `like`, with anything in it.

        It goes back to a pool when nobody holds it, after the copies that it takes part in.
        """
        ...

    def holds(self, tensor: Any) -> bool:
        """Tell whether `tensor` is in the device's memory."""
        ...

    def upload(self, host: Any) -> Any:
        """Return a copy of `host` on the device, made by the current stream.

        `host` must not be written to before that is done.
        """
        ...

    def download(self, tensor: Any, into: Any) -> None:
        """Have the current stream copy `tensor` into `into`, of the same shape, on the host."""
        ...

    def keep(self, tensor: Any, stream: Any) -> None:
        """Say that `stream` uses `tensor`, too, which another one made.

        Its memory is then given to nobody else before `stream` has done what it was asked so far.
        """
        ...

    def stream(self) -> Stream:
        """Return a new stream that waits for none of the others."""
        ...

    def current(self) -> Stream:
        """Return the stream that the calling thread asks."""
        ...

    def event(self) -> Event:
        """Return an event that marks nothing yet."""
        ...

    def on(self, stream: Any) -> AbstractContextManager[None]:
        """Let the calling thread ask `stream`."""
        ...

    def capture(self, run: Callable[[], Any]) -> Graph:
        """Record what `run` asks for, instead of doing it.

        `run` must have run before, ask for nothing that waits for the device, and find its input
        where the replays will. Graphs of one layer share their memory: copy an output, on the same
        stream, before another graph is replayed.

        Raises:
            RuntimeError: something in `run` cannot be recorded.
        """
        ...

    def synchronize(self) -> None:
        """Wait for everything.

        Raises:
            RuntimeError: the device failed.
        """
        ...

    def empty_cache(self) -> None:
        """Give memory that no tensor takes back to the device."""
        ...

    def memory(self) -> Memory:
        """Return how much of the device this process takes."""
        ...

    def reset_peak(self) -> None:
        """Count `Memory.peak` from here."""
        ...


def open_layer(device: Any) -> Layer | None:
    """Return the layer of `device`, a `torch.device` or a `DeviceName`; None unless it is CUDA."""
    return TorchLayer(device) if getattr(device, "type", None) == "cuda" else None


class TorchGraph:
    """A `torch.cuda.CUDAGraph` and its output."""

    def __init__(self, graph: Any, output: Any) -> None:
        """Hold what was captured."""
        self.output = output
        self._graph = graph

    def replay(self) -> None:
        """See `Graph.replay`."""
        self._graph.replay()


class TorchLayer:
    """A device through `torch.cuda`; see `Layer`."""

    def __init__(self, device: Any) -> None:
        """Use `device`, of which this process has a context from here on."""
        self._torch: Any = importlib.import_module("torch")
        self._cuda: Any = self._torch.cuda
        self.device = self._torch.device("cuda", device.index or 0)
        self.name: str = self._cuda.get_device_name(self.device)
        self.capability: tuple[int, int] = self._cuda.get_device_capability(self.device)
        self._pool: Any = None

    def pin(self, like: Any) -> Any:
        """See `Layer.pin`; the pool is torch's own, which waits for copies by itself."""
        with self._cuda.device(self.device):  # else a thread makes a context on device 0
            return self._torch.empty(like.shape, dtype=like.dtype, pin_memory=True)

    def holds(self, tensor: Any) -> bool:
        """See `Layer.holds`; other GPUs' memory is nothing that we copy, either."""
        return bool(tensor.is_cuda)

    def upload(self, host: Any) -> Any:
        """See `Layer.upload`."""
        return host.to(self.device, non_blocking=True)

    def download(self, tensor: Any, into: Any) -> None:
        """See `Layer.download`."""
        into.copy_(tensor, non_blocking=True)

    def keep(self, tensor: Any, stream: Any) -> None:
        """See `Layer.keep`."""
        tensor.record_stream(stream)

    def stream(self) -> Any:
        """See `Layer.stream`; those of torch's pool do not wait for the default stream."""
        return self._cuda.Stream(self.device)

    def current(self) -> Any:
        """See `Layer.current`."""
        return self._cuda.current_stream(self.device)

    def event(self) -> Any:
        """See `Layer.event`; who waits sleeps, and leaves the core to those who decode."""
        return self._cuda.Event(blocking=True)

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        """See `Layer.on`; the device becomes the current one as well."""
        with self._cuda.device(self.device), self._cuda.stream(stream):
            yield

    def capture(self, run: Callable[[], Any]) -> TorchGraph:
        """See `Layer.capture`; what other threads do meanwhile is not recorded."""
        with self._cuda.device(self.device):
            self._pool = self._pool or self._cuda.graph_pool_handle()
            graph = self._cuda.CUDAGraph()
            try:
                with self._cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                    output = run()
            except BaseException:
                self._end_recording()
                raise
        return TorchGraph(graph, output)

    def _end_recording(self) -> None:
        """Let the allocator know that a capture is over which failed at its end.

        torch does so by itself since 2.13, and says that there is none. Before, no memory that two
        streams have used would ever be free again.
        """
        end = getattr(self._torch._C, "_cuda_endAllocateToPool", None)  # noqa: SLF001 - as torch does
        if end is not None:
            with suppress(RuntimeError):
                end(self.device.index, self._pool)

    def synchronize(self) -> None:
        """See `Layer.synchronize`."""
        self._cuda.synchronize(self.device)

    def empty_cache(self) -> None:
        """See `Layer.empty_cache`."""
        self._cuda.empty_cache()

    def memory(self) -> Memory:
        """See `Layer.memory`."""
        return Memory(
            total=self._cuda.mem_get_info(self.device)[1],
            allocated=self._cuda.memory_allocated(self.device),
            peak=self._cuda.max_memory_allocated(self.device),
        )

    def reset_peak(self) -> None:
        """See `Layer.reset_peak`."""
        self._cuda.reset_peak_memory_stats(self.device)
