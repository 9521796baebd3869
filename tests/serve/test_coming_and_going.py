"""Workers and models that come and go leave the door as it was."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hatch_mar.serve import ModelStore, Part, Registration, Registry, Request, Service
from hatch_mar.serve.pool import Pool
from hatch_mar.serve.process import WorkerProcess
from hatch_mar.serve.settings import ServiceSettings
from hatch_mar.serve.slot import Slot
from hatch_mar.weights.cache import Cache
from tests.support.archives import write_mar

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts what /proc shows")

ROUNDS = 10
BODY = bytes(4 << 20)
MOST_GROWTH = ROUNDS * len(BODY) // 2
"""Bytes: half of what it would be if one body a round were kept."""
HANDLER = """\
import tempfile


def handle(data, context):
    if data is not None:
        with tempfile.TemporaryFile():
            return [row["body"] for row in data]
"""

Act = Callable[["Stage"], Awaitable[None]]


class Stage:
    """A runner with one model, and everything that it may leave behind."""

    def __init__(self, service: Service, registry: Registry, folder: Path) -> None:
        self.service = service
        self.registry = registry
        self._folder = folder

    async def ask(self) -> None:
        """Have a body sent back, as soon as a worker is there."""
        request = Request("id", (), [Part("body", "", BODY)])
        response = await self.service.predict("m", None, request)
        assert (response.status, bytes(response.body) == BODY) == (200, True)

    def count(self) -> dict[str, object]:
        """Count what this process holds, and what there is in its folders."""
        gc.collect()
        kinds = Counter(type(one) for one in gc.get_objects())
        maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        return {
            "descriptors": Counter(self._name(entry) for entry in os.scandir("/proc/self/fd")),
            "threads": threading.active_count(),
            "mappings": sum("memfd" in line or "/dev/shm" in line for line in maps),
            "children": len(psutil.Process().children(recursive=True)),
            "files": Counter(path.suffix for path in self._folder.rglob("*")),
            "objects": [kinds[kind] for kind in (Pool, Slot, WorkerProcess)],
            "samples": self.service.metrics.expose().count("WorkerLoadTime{"),
        }

    def _name(self, entry: os.DirEntry[str]) -> str:
        try:
            return str(Path(entry.path).readlink()).partition(":[")[0]
        except OSError:
            return ""  # the descriptor that reads this directory


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Stage]:
    """Serve one model out of a store, everything in `folder`."""
    for name in ("store", "run", "cache", "temporary"):
        (folder / name).mkdir()
    write_mar(folder / "store", "m", HANDLER)
    settings = ServiceSettings()
    environ = {**settings.environ, "TMPDIR": str(folder / "temporary")}
    service = Service(settings=replace(settings, environ=environ))
    registry = Registry(
        service,
        store=ModelStore(folder / "store"),
        root=folder / "run",
        cache=Cache(folder / "cache"),
    )
    try:
        await register(registry)
        yield Stage(service, registry, folder)
    finally:
        await service.close()


async def register(registry: Registry) -> None:
    await registry.register(Registration(url="m-1.0.mar", initial_workers=1))


async def kill(stage: Stage) -> None:
    (worker,) = stage.service.health().models["m"]["1.0"].workers
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    while stage.service.health().models["m"]["1.0"].workers[0].deaths == worker.deaths:  # noqa: ASYNC110
        await asyncio.sleep(0.002)


async def scale(stage: Stage) -> None:
    await stage.service.scale("m", None, 2)
    await stage.ask()
    await stage.service.scale("m", None, 1)


async def register_again(stage: Stage) -> None:
    await stage.registry.unregister("m", None)
    await register(stage.registry)


async def settle(stage: Stage, wanted: dict[str, object]) -> dict[str, object]:
    """Count until there is what is `wanted`, or it takes too long."""
    found = stage.count()
    for _ in range(200):
        if found == wanted:
            break
        await asyncio.sleep(0.05)
        found = stage.count()
    return found


@pytest.mark.parametrize("act", [kill, scale, register_again])
def test_ten_times_leave_everything_as_it_was(
    act: Act, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    async def test() -> None:
        async with opened(tmp_path) as stage:
            for _ in range(2):  # what is made once is there then
                await act(stage)
                await stage.ask()
            before = stage.count()
            for _ in range(100):  # descriptors of those who have just left may linger
                await asyncio.sleep(0.05)
                now = stage.count()
                if now == before and now["objects"] == [1, 1, 1]:
                    break
                before = now
            memory = psutil.Process().memory_info().rss
            for _ in range(ROUNDS):
                await act(stage)
                await stage.ask()
            assert await settle(stage, before) == before
            assert psutil.Process().memory_info().rss - memory < MOST_GROWTH

    asyncio.run(test())
