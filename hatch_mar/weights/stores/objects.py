"""Object stores: `s3:`, `gs:` and `az:`. Each kind's module knows its library, and this one none.

The libraries speak asyncio, on the event loop that fsspec keeps in a thread of its own. A stream
asks for its next bytes there and waits; nothing is read ahead, and any number of them may wait at
once. A source's client is its own, made when it is first opened: it sees the environment as it is
then, and shares no listing and no size with anybody.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from hatch_mar.weights.address import ObjectAddress
from hatch_mar.weights.stores.answers import is_behind_the_end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from hatch_mar.weights.stores.protocol import Resolved

_CLIENTS = {"s3": "s3", "gs": "google", "az": "azure"}
"""The module of a scheme, with its class `Client`."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client gives for one request: see `Stream` for the first three."""

    start: int
    total: int | None
    version: str | None
    read: Callable[[int], Awaitable[bytes]]
    close: Callable[[], Coroutine[object, object, None]]


class Client(Protocol):
    """One kind of object store, for one object. Its coroutines raise what its library raises."""

    def __init__(self, address: ObjectAddress, stall: float) -> None:
        """Find credentials, which may block; open no connection to the object.

        Raises:
            OSError: they, or the account, cannot be found.
        """
        ...

    async def connect(self) -> None:
        """Make ready for the other coroutines. Called once, on fsspec's loop."""
        ...

    async def get(self, start: int, stop: int | None) -> Answer:
        """Ask for the bytes from `start` up to `stop`, as `Source.open` does."""
        ...

    async def resolve(self) -> Resolved:
        """Ask which bytes the object has now."""
        ...

    async def close(self) -> None:
        """Let go of connections; also where `connect` has failed."""
        ...

    def explain(self, error: Exception) -> OSError:
        """Return the error that `stores` promises for one that the library has raised."""
        ...


def open_source(uri: str, *, stall: float) -> ObjectSource:
    """Return the object at `uri`."""
    return ObjectSource(ObjectAddress.parse(uri), stall)


def resolve(uri: str, *, stall: float) -> Resolved:
    """Return `uri` with the version that its object has now, where the store keeps versions."""
    source = open_source(uri, stall=stall)
    try:
        return source.resolve()
    finally:
        source.close()


class ObjectSource:
    """One object."""

    def __init__(self, address: ObjectAddress, stall: float) -> None:
        """Remember where it is. A server that sends nothing for `stall` seconds counts as gone."""
        self._address = address
        self._stall = stall
        self._connecting = threading.Lock()
        self._client: Client | None = None

    def open(self, start: int = 0, stop: int | None = None) -> ObjectStream:
        """See `Source.open`."""
        client = self._connected()
        try:
            return ObjectStream(client, _run(client, client.get(start, stop)))
        except OSError as error:
            if start and is_behind_the_end(error):  # what was kept is longer than what is there
                return self.open()
            raise

    def resolve(self) -> Resolved:
        """Ask the store which bytes the object has now."""
        client = self._connected()
        return _run(client, client.resolve())

    def close(self) -> None:
        """See `Source.close`."""
        client, self._client = self._client, None
        if client is not None:
            _run(client, client.close())

    def _connected(self) -> Client:
        with self._connecting:
            if self._client is None:
                client = _find_client(self._address, self._stall)
                try:
                    _run(client, client.connect())
                except BaseException:
                    _run(client, client.close())
                    raise
                self._client = client
            return self._client


class ObjectStream:
    """One answer."""

    def __init__(self, client: Client, answer: Answer) -> None:
        """Read what `client` has answered."""
        self._client = client
        self._answer = answer
        self.start = answer.start
        self.total = answer.total
        self.version = answer.version

    def read(self, count: int) -> bytes:
        """See `Stream.read`."""
        return _run(self._client, self._read(count))

    def close(self) -> None:
        """See `Stream.close`."""
        _run(self._client, self._answer.close())

    async def _read(self, count: int) -> bytes:
        """Gather small reads here: each trip to the loop and back costs more than they do."""
        parts = []
        while count and (part := await self._answer.read(count)):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def _find_client(address: ObjectAddress, stall: float) -> Client:
    try:
        module = importlib.import_module(f"{__package__}.{_CLIENTS[address.scheme]}")
    except ImportError as error:
        extra = address.scheme
        raise OSError(f"{extra}:// needs {error.name}: pip install 'hatch-mar[{extra}]'") from error
    client: Client = module.Client(address, stall)
    return client


def _run(client: Client, coroutine: Coroutine[object, object, T]) -> T:
    """Run `coroutine` on fsspec's loop; raise what its store's errors amount to."""
    from fsspec.asyn import get_loop  # noqa: PLC0415 - an extra

    async def run() -> T:
        try:
            return await coroutine
        except Exception as error:
            raise client.explain(error) from error

    future = asyncio.run_coroutine_threadsafe(run(), get_loop())
    try:
        return future.result()
    except BaseException:  # also an interruption from the keyboard
        future.cancel()
        raise
