"""The same servers with a handler that has something to do: the works of `apps/works.py`."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.apps import works
from benchmarks.peers.archive_servers import (
    HatchMarPeer,
    TorchServePeer,
    serve_digits,
    torchserve_home,
)
from benchmarks.peers.python_servers import APPS, FASTAPI, LITSERVE, MOSEC, PythonServer
from tests.support.environment import WORK, say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.peers.peer import Peer

STORES = WORK / "benchmarks" / "works"
TORCHSERVE_WARM_UP = 6.0
"""Seconds for each task: there are several, and its JIT compiler learns from all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """Files of `apps/` that are a handler."""

    file: str
    model: str = ""
    extra: tuple[str, ...]


IMAGES = Handler(file="image_handler.py", model="image_model.py", extra=("works.py",))


def hatch_mar(
    tasks: Sequence[str],
    options: Sequence[str] = (),
    config: str = "",
    *,
    name: str = "hatch-mar",
    handler: Handler | None = None,
) -> Peer:
    """Return ours; `config` are more lines of model-config.yaml."""
    store = name.replace(" ", "-").replace(",", "")
    archives = write_archives(store, tasks, config, handler)
    return HatchMarPeer(name=name, archives=archives, options=options)


def torchserve(
    tasks: Sequence[str], *, quiet: bool = False, settings: Mapping[str, str] | None = None
) -> Peer:
    """Return TorchServe, which waits for a fuller batch as briefly as the others that wait."""
    archives = write_archives("torchserve", tasks, f"maxBatchDelay: {works.WAIT_MS}\n")
    return TorchServePeer(
        name="torchserve-quiet" if quiet else "torchserve",
        quiet=quiet,
        archives=archives,
        settings=settings or {},
        warm_up=TORCHSERVE_WARM_UP,
    )


def mosec(tasks: Sequence[str], options: Sequence[str] = ()) -> Peer:
    arguments = ("{apps}/mosec_works.py", "--address=127.0.0.1", "--port={port}", *options)
    return _working(MOSEC, tasks, arguments)


def fastapi(tasks: Sequence[str]) -> Peer:
    """Return FastAPI with the tasks of batch size 1: it has no batches."""
    arguments = (*FASTAPI.arguments[:-1], "fastapi_works:app")
    return _working(FASTAPI, [task for task in tasks if works.batch_size(task) == 1], arguments)


def litserve(tasks: Sequence[str], accelerator: str = "cpu") -> Peer:
    """Return LitServe with the tasks whose bodies are JSON: it takes no others."""
    arguments = ("{apps}/litserve_works.py", accelerator, "{port}")
    return _working(LITSERVE, [task for task in tasks if works.takes_json(task)], arguments)


MAKERS: Mapping[str, Callable[[Sequence[str]], Peer]] = {
    "hatch-mar": hatch_mar,
    "fastapi": fastapi,
    "mosec": mosec,
    "litserve": litserve,
    "torchserve-quiet": lambda tasks: torchserve(tasks, quiet=True),
    "torchserve": torchserve,
}
"""How each server that takes part in all comparisons is made for some tasks."""


def _working(server: PythonServer, tasks: Sequence[str], arguments: Sequence[str]) -> Peer:
    environ = {"BENCHMARK_TASKS": " ".join(tasks), "BENCHMARK_TORCH": str(find_torch())}
    return dataclasses.replace(
        server,
        paths={task: f"/{task}" for task in tasks},
        arguments=tuple(arguments),
        environ=environ,
    )


def on_device(peer: Peer, device: str) -> Peer:
    """Return a server of Python's with its networks on `device`."""
    assert isinstance(peer, PythonServer)
    return dataclasses.replace(peer, environ={**peer.environ, "BENCHMARK_DEVICE": device})


def find_torch() -> Path:
    """Return the directory of the torch that every server imports: it is ours."""
    python = serve_digits().with_name("python")
    (directory,) = (python.parents[1] / "lib").glob("python3*/site-packages")
    return directory


def write_archives(
    store: str, tasks: Sequence[str], config: str = "", handler: Handler | None = None
) -> dict[str, Path]:
    """Write an archive of each task into a directory of their own; return their paths."""
    handler = handler or Handler(file="works_handler.py", extra=("works.py",))
    say(f"writing archives for {store}")
    directory = STORES / store
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    written = {}
    for task in tasks:
        settings = directory / "model-config.yaml"
        workers = "minWorkers: 1\nmaxWorkers: 1\n"
        settings.write_text(f"batchSize: {works.batch_size(task)}\n{workers}{config}")
        written[task] = torchserve_home().make_archive(
            task,
            directory,
            handler=str(APPS / handler.file),
            model_file=APPS / handler.model if handler.model else None,
            config=settings,
            extra_files=[APPS / name for name in handler.extra],
        )
        settings.unlink()
    return written
