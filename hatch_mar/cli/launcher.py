"""Bringing models up: all at once, listed in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hatch_mar.cli.fetching import give_back_terminal, render_progress, told
from hatch_mar.cli.output import visible
from hatch_mar.errors import HatchMarError, ModelError
from hatch_mar.serve import ModelStore, Registry, make_root, prepare, remove_rundirs
from hatch_mar.serve.aside import run_aside
from hatch_mar.serve.environments.venvs import Environments
from hatch_mar.weights.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hatch_mar.api.health import Readiness
    from hatch_mar.archive.read import Archive
    from hatch_mar.cli.logs import Logs
    from hatch_mar.cli.options import ServeOptions
    from hatch_mar.cli.targets import Target
    from hatch_mar.serve import Deployment, Service
    from hatch_mar.weights.fetch import Progress
    from hatch_mar.weights.reference import Reference

_UNPACKING = "being unpacked"
_INSTALLING = "its requirements are being looked at"


class _StoppedError(BaseException):
    """Ends a download that nobody waits for any more; nothing that handles errors may catch it."""


@dataclass(slots=True, eq=False)
class _Launch:
    """One model on its way."""

    target: Target
    label: str
    """Its name, once its archive is open; until then what the operator wrote."""
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    listed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the service knows it, or never will."""
    failed: bool = False


class Launcher:
    """Takes models from where they are to the service."""

    def __init__(
        self, service: Service, readiness: Readiness, options: ServeOptions, logs: Logs
    ) -> None:
        """Make the root of the run directories, nothing else. `logs` hear what becomes of them."""
        self._logs = logs
        self.errors: list[BaseException] = []
        """Why models are not served, where others are."""
        self._service = service
        self._readiness = readiness
        self._options = options
        self._root = make_root()
        self._cache = Cache()
        self._environments = Environments(
            install=options.install_requirements,
            remedy=(
                "set install_py_dep_per_model=true"
                if options.as_torchserve
                else "start with --install-requirements"
            ),
        )
        self.registry = Registry(
            service,
            store=ModelStore(options.model_store, allowed_urls=options.allowed_urls),
            root=self._root,
            cache=self._cache,
            default_handler=options.default_handler,
            default_workers=options.registered_workers,
            unregister_timeout=options.unregister_timeout,
            environments=self._environments,
        )
        self._launches: list[_Launch] = []
        self._stopped = False

    async def bring_up(self, targets: Sequence[Target]) -> None:
        """Return when every model is ready, or has failed.

        Raises:
            HatchMarError: the only model cannot be served. Where others were asked for too, a
                failure is told on stderr, kept in `errors` and in the readiness, and the others
                are served.
        """
        self._launches = [_Launch(target, target.name or target.what) for target in targets]
        for launch in self._launches:
            self._readiness.missing[launch.label] = _UNPACKING
        async with asyncio.TaskGroup() as group:
            for launch in self._launches:
                group.create_task(self._bring_up(launch))

    async def under_way(self) -> bool:
        """Return when no model's workers are still to be started; False if there will be none."""
        await asyncio.sleep(0)
        for launch in self._launches:
            await launch.listed.wait()
        return not self._launches or not all(launch.failed for launch in self._launches)

    def close(self) -> None:
        """Stop downloads and remove the run directories."""
        self._stopped = True
        self._environments.close()
        give_back_terminal()
        remove_rundirs(self._root)

    async def _bring_up(self, launch: _Launch) -> None:
        started = time.monotonic()
        try:
            try:
                deployment = await self._prepare(launch)
                await self._wait_for_elders(launch)
                registering = asyncio.ensure_future(self._service.register(deployment))
                await asyncio.sleep(0)  # it is listed, and its workers are on their way
                self._readiness.missing.pop(launch.label, None)
            except BaseException:
                launch.failed = True
                raise
            finally:
                launch.opened.set()
                launch.listed.set()
            await registering
        except (HatchMarError, OSError) as error:
            if len(self._launches) == 1 and not self._options.as_torchserve:
                raise
            self._readiness.missing[launch.label] = str(error)
            self.errors.append(error)
            self._report(launch.label, error)
        else:
            seconds = time.monotonic() - started
            if not self._options.install_requirements:  # only a remark: nothing waits for it
                deployment = await run_aside(lambda: self._environments.equip(deployment))
            self._announce(deployment, seconds)

    async def _prepare(self, launch: _Launch) -> Deployment:
        """Open the archive and make its run directory, in a thread: weights may take minutes."""
        archive = await run_aside(launch.target.open)
        with archive:
            reason = self._readiness.missing.pop(launch.label, "")
            launch.label = launch.target.name or archive.manifest.model_name
            self._readiness.missing[launch.label] = reason
            launch.opened.set()
            return await run_aside(lambda: self._make_deployment(launch, archive))

    def _make_deployment(self, launch: _Launch, archive: Archive) -> Deployment:
        target, options = launch.target, self._options
        deployment = prepare(
            archive,
            root=self._root,
            cache=self._cache,
            name=target.name,
            default_handler=options.default_handler,
            url=target.path.name if target.path else target.what,
            watch=lambda reference: self._watch(launch, reference),
        )
        self._readiness.missing[launch.label] = _INSTALLING
        if self._options.install_requirements:
            deployment = self._environments.equip(deployment)
        config = deployment.config
        if not config.raw:
            config = replace(
                config,
                response_timeout=options.response_timeout or config.response_timeout,
                startup_timeout=options.startup_timeout or config.startup_timeout,
            )
        if options.batch_size is not None:
            config = replace(config, batch_size=options.batch_size)
        if options.device[1] is not None:
            config = replace(config, device_ids=options.device[1])
        deployment = replace(deployment, config=config)
        settings = options.settings_of_models.get((deployment.name, deployment.version))
        return deployment if settings is None else settings.lay_over(deployment)

    @contextmanager
    def _watch(self, launch: _Launch, reference: Reference) -> Iterator[Progress]:
        """Tell of the fetch of one file: to those who ask for readiness, and on stderr."""
        missing, name = self._readiness.missing, visible(reference.target)
        missing[launch.label] = f"looking for weights: {name}"
        with told(reference.target, reference.size, alone=len(self._launches) == 1) as tell:

            def on_progress(done: int, size: int | None) -> None:
                if self._stopped:
                    raise _StoppedError
                part = render_progress(done, size if reference.size is None else reference.size)
                missing[launch.label] = f"fetching weights: {name} {part}"
                tell(done, size)

            yield on_progress
        missing[launch.label] = _UNPACKING

    async def _wait_for_elders(self, launch: _Launch) -> None:
        """Let versions that were named before go first: the first one listed is the default."""
        for elder in self._launches[: self._launches.index(launch)]:
            await elder.opened.wait()
            if elder.label == launch.label:
                await elder.listed.wait()

    def _announce(self, deployment: Deployment, seconds: float) -> None:
        health = self._service.health().models[deployment.name][deployment.version]
        devices = ", ".join(sorted({worker.device for worker in health.workers})) or "no device"
        count = len(health.workers)
        for warning in deployment.warnings:
            self._logs.warn(f"{deployment.name}: {warning}")
        self._logs.announce(
            f"{deployment.name} {deployment.version}: ready on {devices}, "
            f"{count} worker{'' if count == 1 else 's'}, {seconds:.1f} s"
        )

    def _report(self, label: str, error: BaseException) -> None:
        """Tell why one of several models is not served: the handler's own words first."""
        if isinstance(error, ModelError) and error.traceback:
            self._logs.warn(error.traceback.rstrip("\n"))
        self._logs.warn(f"hatch-mar: {label}: not served: {error}")
