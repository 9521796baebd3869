"""A runner from its start to its end: models, doors, signals, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hatch_mar.api.health import Readiness
from hatch_mar.cli.launcher import Launcher
from hatch_mar.cli.logs import make_logs
from hatch_mar.errors import HatchMarError
from hatch_mar.serve import Service, ServiceSettings
from hatch_mar.serve.allocation import keep_freed_memory
from hatch_mar.serve.metrics.config import DEFAULT, list_declared
from hatch_mar.serve.metrics.log import EventMetrics, make_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hatch_mar.api.listeners import BoundSocket, Listener
    from hatch_mar.api.operations import Operations
    from hatch_mar.api.rpc.server import RpcServer
    from hatch_mar.api.tokens import Tokens
    from hatch_mar.cli.options import ServeOptions
    from hatch_mar.cli.targets import Target
    from hatch_mar.cli.torchserve.snapshots import Kind, Snapshots

_HEAD_START = 0.25
"""Seconds that workers may get before the doors: what takes longest comes first."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_KILLED = 128
"""Exit status of a program that a signal ended, less the signal's number, as shells have it."""


class Runner:
    """Serves `targets` on `sockets` until it is asked to stop."""

    def __init__(
        self,
        targets: Sequence[Target],
        options: ServeOptions,
        sockets: Sequence[BoundSocket],
        *,
        tokens: Tokens | None = None,
        snapshots: Snapshots | None = None,
        on_open: Callable[[], None] | None = None,
    ) -> None:
        """Start nothing yet. `on_open` is called once, when the doors are open."""
        self._tokens = tokens
        self._snapshots = snapshots
        self._on_open = on_open
        self._targets = targets
        self._options = options
        self._sockets = sockets
        self._logs = make_logs(options)
        config = options.metrics_config or DEFAULT
        self._metrics = make_metrics(
            mode=options.metrics_mode,
            config=config,
            auto_detect=options.detects_metrics,
            write=self._logs.tell_metric,
        )
        environ = dict(os.environ if options.environ is None else options.environ)
        self._service = Service(
            metrics=self._metrics,
            settings=ServiceSettings(
                workers=options.workers,
                default_workers=options.default_workers,
                job_queue_size=options.job_queue_size,
                decode_input_request=options.decode_input_request,
                limit_max_image_pixels=options.limit_max_image_pixels,
                envelope=options.service_envelope,
                environ=environ | {**self._logs.worker_environ},
                output=self._logs.streams,
                model_metrics=list_declared(config),
                system_metrics=options.system_metrics,
                device=options.device[0],
                install_hooks=options.install_hooks,
            ),
        )
        self._readiness = Readiness(service=self._service, as_torchserve=options.as_torchserve)
        self._launcher = Launcher(self._service, self._readiness, options, self._logs)
        self._listeners: list[Listener] = []
        self._rpc_servers: list[RpcServer] = []
        self._stop = asyncio.Event()
        self._impatient = 0
        """The second signal, once there was one."""

    async def run(self) -> int:
        """Serve, and return the exit status: 0 once stopped by a signal and everything answered.

        Raises:
            HatchMarError: the only model cannot be served.
        """
        self._logs.open()
        raise_file_limit()
        self._watch_signals()
        if isinstance(self._metrics, EventMetrics) and self._options.system_metrics:
            self._log_machine(self._metrics)
        try:
            return await self._run()
        except BaseExceptionGroup as group:
            # One model alone was asked for: what stopped it is the whole story.
            raise group.exceptions[0] from None
        except asyncio.CancelledError:
            return _KILLED + self._impatient

    def _log_machine(self, metrics: EventMetrics) -> None:
        """Log what the machine does, now and again and again."""
        metrics.log_machine()
        loop = asyncio.get_running_loop()
        loop.call_later(self._options.metrics_interval, self._log_machine, metrics)

    async def _run(self) -> int:
        models = asyncio.create_task(self._launcher.bring_up(self._targets))
        try:
            if await self._is_worth_opening():
                await self._open_doors()
            return await self._stay(models)
        finally:
            models.cancel()
            await self._leave()

    async def _is_worth_opening(self) -> bool:
        """Give the models a head start; return whether there is anything to open the doors for.

        As TorchServe, the program `torchserve` opens them when every archive has been fetched and
        unpacked, and every worker is on its way: "Model server started." means as much.
        """
        under_way = asyncio.ensure_future(self._launcher.under_way())
        stopping = asyncio.ensure_future(self._stop.wait())
        patience = None if self._options.as_torchserve else _HEAD_START
        try:
            either: set[asyncio.Task[Any]] = {under_way, stopping}
            await asyncio.wait(either, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if self._options.as_torchserve:
                return not self._stop.is_set()
            return under_way.result() if under_way.done() else True
        finally:
            under_way.cancel()
            stopping.cancel()

    async def _open_doors(self) -> None:
        from hatch_mar.api.cors import Cors  # noqa: PLC0415 - after the workers' start
        from hatch_mar.api.doors import make_listeners  # noqa: PLC0415 - the same
        from hatch_mar.api.operations import Operations  # noqa: PLC0415 - the same

        origin, methods, headers = self._options.cors
        operations = Operations(
            self._service,
            self._launcher.registry,
            enabled=self._options.enable_model_api,
            on_change=lambda: self._save("snapshot"),
        )
        self._listeners = make_listeners(
            self._sockets,
            self._service,
            readiness=self._readiness,
            operations=operations,
            access_log=self._logs.access_log() if self._options.access_log else None,
            max_request_size=self._options.max_request_size,
            max_response_size=self._options.max_response_size,
            tokens=self._tokens,
            cors=Cors(origin=origin, methods=methods, headers=headers) if origin else None,
            open_inference=self._options.open_inference,
        )
        for listener in self._listeners:
            await listener.open()
        doors = {
            purpose: bound.url for bound in self._sockets for purpose in bound.address.purposes
        }
        self._logs.announce(
            "listening: " + ", ".join(f"{name} {url}" for name, url in doors.items())
        )
        if self._options.grpc:
            await self._open_rpc(operations)
        if self._on_open is not None:
            self._on_open()

    async def _open_rpc(self, operations: Operations) -> None:
        from hatch_mar.api.rpc.doors import make_rpc_servers  # noqa: PLC0415 - an extra's

        options = self._options
        self._rpc_servers = make_rpc_servers(
            options.grpc,
            self._service,
            readiness=self._readiness,
            operations=operations,
            max_request_size=options.max_request_size,
            max_response_size=options.max_response_size,
            tokens=self._tokens,
            open_inference=options.open_inference,
        )
        places = [await server.open() for server in self._rpc_servers]
        names = [address.purpose for address in options.grpc]
        self._logs.announce("gRPC: " + ", ".join(map(" ".join, zip(names, places, strict=True))))

    async def _stay(self, models: asyncio.Task[None]) -> int:
        """Return 0 when asked to stop, or an error's exit status when there is nothing to serve."""
        stopping = asyncio.create_task(self._stop.wait())
        try:
            either: set[asyncio.Task[Any]] = {stopping, models}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if models.done():
                models.result()
                errors = self._launcher.errors
                hopeless = not self._options.as_torchserve
                if hopeless and errors and len(errors) == len(self._targets):
                    return errors[0].exit_code if isinstance(errors[0], HatchMarError) else 1
                # What is here now stays: looking through it for garbage would only make a request
                # wait, some tens of milliseconds at a time.
                gc.freeze()
                keep_freed_memory()
                self._save("startup")
            await stopping
        finally:
            stopping.cancel()
        return 0

    def _save(self, kind: Kind) -> None:
        if self._snapshots is not None:
            self._snapshots.save(kind, self._service)

    def _watch_signals(self) -> None:
        """Let the first signal ask for a clean end, and the second one for an immediate end."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def on_signal(signum: int) -> None:
            if self._stop.is_set():
                self._impatient = signum
                task.cancel()
            self._stop.set()

        for signum in _SIGNALS:
            if signal.getsignal(signum) is signal.SIG_IGN and signum == signal.SIGHUP:
                continue  # nohup: we are to outlive the terminal
            loop.add_signal_handler(signum, on_signal, signum)

    async def _leave(self) -> None:
        """Answer what was accepted, then end every process and remove every run directory."""
        timeout = 0 if self._impatient else self._options.drain_timeout
        self._save("shutdown")
        try:
            doors: list[Listener | RpcServer] = [*self._listeners, *self._rpc_servers]
            await asyncio.gather(*(door.close(timeout=timeout) for door in doors))
            await self._service.close(timeout=timeout)
        finally:
            await self._service.close(timeout=0)
            for bound in self._sockets:
                bound.socket.close()
            self._launcher.close()
            self._logs.close()


def raise_file_limit() -> None:
    """Let this process and its workers open as many files as they may (RLIMIT_NOFILE).

    A shell's 1024 are for programs that use `select`. Each connection is a file, and so is each
    large body on its way. Java virtual machines do the same, and hence TorchServe.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # a system may have a limit of its own below
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
