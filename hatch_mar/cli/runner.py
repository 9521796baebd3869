"""A runner from its start to its end: doors, models, signals, and nothing left behind."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hatch_mar.api.health import Readiness
from hatch_mar.errors import HatchMarError, ModelError
from hatch_mar.serve import Service, ServiceSettings, make_root, prepare, remove_rundirs
from hatch_mar.weights.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from hatch_mar.api.access_log import AccessLog
    from hatch_mar.api.listeners import BoundSocket, Listener
    from hatch_mar.cli.options import ServeOptions
    from hatch_mar.cli.targets import Target
    from hatch_mar.serve import Deployment

T = TypeVar("T")

_HEAD_START = 0.25
"""Seconds that workers may get before the doors: what takes longest comes first."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOG_FORMAT = "%(asctime)s [%(levelname)s] %(name)s - %(message)s"


class _StoppedError(BaseException):
    """Ends a download that nobody waits for any more; nothing that handles errors may catch it."""


class Runner:
    """Serves `targets` on `sockets` until it is asked to stop."""

    def __init__(
        self, targets: Sequence[Target], options: ServeOptions, sockets: Sequence[BoundSocket]
    ) -> None:
        """Start nothing yet."""
        self._targets = targets
        self._options = options
        self._sockets = sockets
        self._service = Service(
            settings=ServiceSettings(
                workers=options.workers,
                device=options.device[0],
                install_hooks=options.install_hooks,
            )
        )
        self._readiness = Readiness(service=self._service)
        self._root = make_root()
        self._cache = Cache()
        self._listeners: list[Listener] = []
        self._access_log: AccessLog | None = None
        self._stop = asyncio.Event()
        self._to_launch = len(targets)
        self._launched = asyncio.Event()
        """Set when every model's workers are on their way, or never will be."""
        self._signals = 0
        self._errors: list[BaseException] = []

    async def run(self) -> int:
        """Serve, and return the exit status: 0 once stopped by a signal.

        Raises:
            HatchMarError: the only model cannot be served.
        """
        logging.basicConfig(format=_LOG_FORMAT, stream=sys.stderr)
        self._watch_signals()
        starts = [asyncio.create_task(self._start(target)) for target in self._targets]
        try:
            await self._give_head_start()
            await self._open_doors()
            return await self._stay(starts)
        finally:
            for start in starts:
                start.cancel()
            await self._leave()

    # Coming up

    async def _start(self, target: Target) -> None:
        """Bring up one model; where others were asked for too, its failure is not theirs."""
        label = target.name or target.what
        self._readiness.missing[label] = "being unpacked"
        started = time.monotonic()
        try:
            try:
                deployment = await _in_thread(lambda: self._prepare(target, label))
                registering = asyncio.ensure_future(self._service.register(deployment))
                await asyncio.sleep(0)  # it is listed, and its workers are on their way
                del self._readiness.missing[label]
            finally:
                self._note_launched()
            await registering
        except (HatchMarError, OSError) as error:
            if len(self._targets) == 1:
                raise
            self._readiness.missing[label] = str(error)
            self._errors.append(error)
            _report(label, error)
        else:
            self._announce(deployment, time.monotonic() - started)

    def _prepare(self, target: Target, label: str) -> Deployment:
        """Make the run directory, in a thread of its own: weights may take minutes to come."""

        def on_progress(done: int, size: int | None) -> None:
            if self._stop.is_set():
                raise _StoppedError
            part = f"{done / size:.0%}" if size else f"{done / 1e6:.0f} MB"
            self._readiness.missing[label] = f"weights are being fetched: {part}"

        with target.open() as archive:
            deployment = prepare(
                archive,
                root=self._root,
                cache=self._cache,
                name=target.name,
                url=target.path.name if target.path else target.what,
                progress=on_progress,
            )
        config = deployment.config
        if self._options.batch_size is not None:
            config = replace(config, batch_size=self._options.batch_size)
        if self._options.device[1] is not None:
            config = replace(config, device_ids=self._options.device[1])
        return replace(deployment, config=config)

    def _announce(self, deployment: Deployment, seconds: float) -> None:
        health = self._service.health().models[deployment.name][deployment.version]
        devices = ", ".join(sorted({worker.device for worker in health.workers})) or "no device"
        count = len(health.workers)
        for warning in deployment.warnings:
            click.echo(f"{deployment.name}: {warning}", err=True)
        click.echo(
            f"{deployment.name} {deployment.version}: ready on {devices}, "
            f"{count} worker{'' if count == 1 else 's'}, {seconds:.1f} s"
        )

    async def _give_head_start(self) -> None:
        """Wait a moment for the workers to be on their way: our own imports can wait."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._launched.wait(), _HEAD_START)

    def _note_launched(self) -> None:
        self._to_launch -= 1
        if not self._to_launch:
            self._launched.set()

    async def _open_doors(self) -> None:
        from hatch_mar.api.access_log import AccessLog, write_to_stdout  # noqa: PLC0415 - after
        from hatch_mar.api.doors import make_listeners  # noqa: PLC0415 - the workers' start

        if self._options.access_log:
            sys.stdout.flush()
            self._access_log = AccessLog(asyncio.get_running_loop(), write_to_stdout)
        self._listeners = make_listeners(
            self._sockets,
            self._service,
            readiness=self._readiness,
            access_log=self._access_log,
            max_request_size=self._options.max_request_size,
            max_response_size=self._options.max_response_size,
        )
        for listener in self._listeners:
            await listener.open()
        doors = {
            purpose: bound.url for bound in self._sockets for purpose in bound.address.purposes
        }
        click.echo("listening: " + ", ".join(f"{name} {url}" for name, url in doors.items()))

    # Staying

    async def _stay(self, starts: Sequence[asyncio.Task[None]]) -> int:
        stopping = asyncio.create_task(self._stop.wait())
        started = asyncio.gather(*starts)
        try:
            either: set[asyncio.Future[Any]] = {stopping, started}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                await started
                if len(self._errors) == len(self._targets):
                    return getattr(self._errors[0], "exit_code", 1)
            await stopping
        finally:
            stopping.cancel()
            started.cancel()
        return 0

    # Leaving

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def on_signal() -> None:
            self._signals += 1
            self._stop.set()
            if self._signals > 1:
                task.cancel()

        for signum in _SIGNALS:
            loop.add_signal_handler(signum, on_signal)

    async def _leave(self) -> None:
        """Answer what was accepted, then end every process and remove every run directory."""
        timeout = self._options.drain_timeout
        try:
            closings: list[Awaitable[object]] = [
                listener.close(timeout=timeout) for listener in self._listeners
            ]
            await asyncio.gather(*closings)
            await self._service.close(timeout=timeout)
        finally:
            await self._service.close(timeout=0)
            for bound in self._sockets:
                bound.socket.close()
            if self._access_log is not None:
                self._access_log.flush()
            remove_rundirs(self._root)


def _report(label: str, error: BaseException) -> None:
    """Tell on stderr why one of several models is not served: the handler's own words first."""
    if isinstance(error, ModelError) and error.traceback:
        click.echo(error.traceback.rstrip("\n"), err=True)
    click.echo(f"hatch-mar: {label}: not served: {error}", err=True)


async def _in_thread(function: Callable[[], T]) -> T:
    """Return what `function` returns in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(settle_with: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if result.done() else settle_with())

    def work() -> None:
        try:
            value = function()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            reason = error
            settle(lambda: result.set_exception(reason))
        else:
            settle(lambda: result.set_result(value))

    threading.Thread(target=work, name="hatch-mar-prepare", daemon=True).start()
    return await result
