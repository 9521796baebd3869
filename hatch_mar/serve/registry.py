"""Models that come and go while the runner runs."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hatch_mar.archive.read import open_archive
from hatch_mar.errors import (
    ArchiveError,
    ConflictError,
    DefaultVersionError,
    DownloadArchiveError,
    InvalidModelError,
    ModelError,
    PackagesError,
    RegistrationError,
    RequirementsError,
    WeightsError,
)
from hatch_mar.serve.aside import run_aside
from hatch_mar.serve.environments.venvs import Environments
from hatch_mar.serve.rundir import prepare, remove_rundir

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from hatch_mar.archive.modelconfig import ModelConfig
    from hatch_mar.serve.deployment import Deployment
    from hatch_mar.serve.service import Service
    from hatch_mar.serve.store import Found, ModelStore
    from hatch_mar.weights.cache import Cache

_NAME = re.compile(r"[^/\x00-\x1f\x7f\ud800-\udfff]{1,200}")
logger = logging.getLogger("hatch_mar.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a caller of `POST /models` asks for; None where it left the choice to the archive."""

    url: str
    model_name: str | None = None
    handler: str | None = None
    batch_size: int | None = None
    max_batch_delay: int | None = None
    """Milliseconds."""
    response_timeout: int | None = None
    """Seconds."""
    startup_timeout: int | None = None
    """Seconds."""
    initial_workers: int | None = None
    synchronous: bool = True
    """Whether to wait until the workers are ready."""


class Registry:
    """Brings models into a service, and out of it."""

    def __init__(
        self,
        service: Service,
        *,
        store: ModelStore,
        root: Path,
        cache: Cache,
        default_handler: str | None = None,
        default_workers: int = 0,
        unregister_timeout: float | None = None,
        environments: Environments | None = None,
    ) -> None:
        """Find archives in `store`; make run directories in `root`, with weights from `cache`.

        `environments` gives models the packages that they ask for; by default they get none.

        `default_handler` serves archives that name none; `default_workers` are started where
        neither the caller nor the archive says how many. Requests of a model that is unregistered
        have `unregister_timeout` seconds (None: its `responseTimeout`).
        """
        self._service = service
        self._store = store
        self._root = root
        self._cache = cache
        self._default_handler = default_handler
        self._default_workers = default_workers
        self._unregister_timeout = unregister_timeout
        self._environments = environments or Environments(install=False)
        self._fetched: dict[tuple[str, str], Path] = {}
        """Archives that are in the store only because their models are served."""
        self._directories: dict[tuple[str, str], Path] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def register(self, registration: Registration) -> Deployment:
        """Serve the archive that `registration` names; see `Registration.synchronous`.

        Raises:
            ModelNotFoundError: there is no such archive, or it may not be fetched.
            DownloadArchiveError: it cannot be fetched.
            PackagesError: what it requires cannot be installed.
            InvalidModelError: it is broken, or says too little.
            ConflictError: that version is served already.
            RegistrationError: its workers do not start. Nothing of it is left then.
        """
        found = await run_aside(lambda: self._store.find(registration.url))
        try:
            deployment = await run_aside(lambda: self._prepare(registration, found))
        except BaseException:
            _discard(found)
            raise
        key = deployment.name, deployment.version
        if key in self._service or key in self._directories:
            _discard(found)
            remove_rundir(deployment.directory)
            raise ConflictError(
                f"Model version {deployment.version} is already registered for model "
                f"{deployment.name}"
            )
        self._directories[key] = deployment.directory
        if found.fetched:
            self._fetched[key] = found.path
        starting = self._start(deployment)
        if registration.synchronous:
            await starting
        else:
            self._go_on(starting)
            await asyncio.sleep(0)  # it is listed when the caller reads the answer
        return deployment

    async def unregister(self, model: str, version: str | None) -> None:
        """Stop serving a version, the default one if None.

        Raises:
            ModelNotFoundError, ModelVersionNotFoundError: there is none.
            DefaultVersionError: it is the default of several.
        """
        default, versions = self._service.versions(model, version)
        version = version or default
        if version == default and len(versions) > 1:
            raise DefaultVersionError(f"Cannot remove default version for model {model}")
        await self._service.unregister(model, version, timeout=self._unregister_timeout)
        self._clean_up((model, version))

    async def scale(
        self,
        model: str,
        version: str | None,
        minimum: int,
        maximum: int,
        *,
        synchronous: bool,
    ) -> None:
        """Run at least `minimum` workers and at most `maximum`.

        Raises:
            ModelNotFoundError, ModelVersionNotFoundError: there is none.
            RegistrationError: (if `synchronous`) new workers do not start.
        """
        default, _ = self._service.versions(model, version)
        scaling = self._scale(model, version, version or default, minimum, maximum)
        if synchronous:
            await scaling
        else:
            self._go_on(scaling)

    async def _scale(
        self, model: str, version: str | None, shown: str, minimum: int, maximum: int
    ) -> None:
        try:
            await self._service.scale(model, version, minimum, maximum)
        except ModelError as error:
            raise _failed(model, shown) from error

    async def _start(self, deployment: Deployment) -> None:
        try:
            await self._service.register(deployment)
        except BaseException as error:
            self._clean_up((deployment.name, deployment.version))
            if isinstance(error, ModelError):
                raise _failed(deployment.name, deployment.version) from error
            raise

    def _go_on(self, work: Coroutine[Any, Any, None]) -> None:
        """Have `work` done although its caller has been answered; a failure is told in the log."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: %s", error, error.__cause__ or "")

    def _prepare(self, registration: Registration, found: Found) -> Deployment:
        try:
            with open_archive(found.path) as archive:
                _check_name(registration.model_name or archive.manifest.model_name)
                deployment = prepare(
                    archive,
                    root=self._root,
                    cache=self._cache,
                    name=registration.model_name,
                    handler=registration.handler,
                    default_handler=self._default_handler,
                    url=registration.url,
                )
        except ArchiveError as error:
            # Where the store is on this machine is nothing for those who may only name its files.
            text = str(error).replace(str(found.path), found.path.name)
            raise InvalidModelError(text) from error
        except WeightsError as error:
            raise DownloadArchiveError(str(error)) from error
        except OSError as error:
            raise RegistrationError(
                f"Failed to save model: {found.path.name}: {error.strerror or error}"
            ) from error
        deployment = self._equip(deployment)
        return replace(
            deployment,
            config=_override(deployment.config, registration),
            workers=self._count_workers(deployment.config, registration),
            loaded_at_startup=False,
        )

    def _equip(self, deployment: Deployment) -> Deployment:
        """Give the model the packages that it asks for; what is missing is told in the log."""
        told = len(deployment.warnings)
        try:
            deployment = self._environments.equip(deployment)
        except BaseException as error:
            remove_rundir(deployment.directory)
            if not isinstance(error, RequirementsError):
                raise
            logger.error("%s", error)  # noqa: TRY400 - where we were is nobody's business
            raise PackagesError(
                f"Custom pip package installation failed for model {deployment.name}"
            ) from error
        for warning in deployment.warnings[told:]:
            logger.warning("%s: %s", deployment.name, warning)
        return deployment

    def _count_workers(self, config: ModelConfig, registration: Registration) -> int:
        """Say how many workers to start: the archive's own word goes before the caller's."""
        if config.min_workers is not None:
            return config.min_workers
        if registration.initial_workers is not None:
            return registration.initial_workers
        return self._default_workers

    def _clean_up(self, key: tuple[str, str]) -> None:
        """Remove what was there for a version that is served no more."""
        if key in self._directories:
            remove_rundir(self._directories.pop(key))
        fetched = self._fetched.pop(key, None)
        if fetched is not None:
            fetched.unlink(missing_ok=True)


def _override(config: ModelConfig, registration: Registration) -> ModelConfig:
    """Lay what the caller said over `config`; TorchServe's order: timeouts are the archive's."""
    wanted: dict[str, Any] = {
        "batch_size": registration.batch_size,
        "max_batch_delay": registration.max_batch_delay,
    }
    if not config.raw:
        wanted["response_timeout"] = registration.response_timeout
        wanted["startup_timeout"] = registration.startup_timeout
    return replace(config, **{key: value for key, value in wanted.items() if value is not None})


def _check_name(name: str) -> None:
    """Refuse a name that no path could hold: nobody could ask for the model, or unregister it.

    Raises:
        InvalidModelError: it is such a name.
    """
    if name in {".", ".."} or not _NAME.fullmatch(name):
        raise InvalidModelError(f"Model name {name!a} cannot be part of a path.")


def _discard(found: Found) -> None:
    if found.fetched:
        found.path.unlink(missing_ok=True)


def _failed(model: str, version: str) -> RegistrationError:
    return RegistrationError(f"Failed to start workers for model {model} version: {version}")
