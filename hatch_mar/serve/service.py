"""`Service`: every model of a runner behind one face. `api` knows nothing else of this room."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import (
    ModelError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    RequestError,
    ServiceUnavailableError,
)
from hatch_mar.serve.description import describe_pool
from hatch_mar.serve.devices.discovery import Device, discover, read_free
from hatch_mar.serve.devices.figures import collect_devices
from hatch_mar.serve.devices.placement import Placement
from hatch_mar.serve.devices.watch import Watch
from hatch_mar.serve.health import Health
from hatch_mar.serve.metrics.batches import collect_batches
from hatch_mar.serve.metrics.machine import Machine
from hatch_mar.serve.metrics.store import Family, Metrics, Tally
from hatch_mar.serve.pieces import PieceQueue
from hatch_mar.serve.pool import Pool
from hatch_mar.serve.scaling.figures import collect_scaling
from hatch_mar.serve.settings import ServiceSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from hatch_mar.model.protocol import Request, Response
    from hatch_mar.serve.batching.jobs import Job
    from hatch_mar.serve.batching.record import BatchRecord
    from hatch_mar.serve.deployment import Deployment

logger = logging.getLogger("hatch_mar.serve")


class Route:
    """Where a (model, version) of a path leads, and what is counted under those labels."""

    __slots__ = ("pool", "tally")

    def __init__(self, pool: Pool, tally: Tally) -> None:
        """Lead to `pool`, count in `tally`."""
        self.pool = pool
        self.tally = tally


class ServedModel:
    """Every version of one model."""

    __slots__ = ("default", "versions")

    def __init__(self) -> None:
        """Start without a version: the first one to come is the default."""
        self.default = ""
        self.versions: dict[str, Pool] = {}


class Service:
    """Models, their workers, and the way to them.

    Every method is called from the one thread whose event loop runs the runner.
    """

    def __init__(
        self, *, settings: ServiceSettings | None = None, metrics: Metrics | None = None
    ) -> None:
        """Serve nothing yet. No process is started, and no device looked for."""
        self.settings = settings or ServiceSettings()
        self.metrics = metrics or Metrics()
        self.closing = False
        self._models: dict[str, ServedModel] = {}
        self._routes: dict[tuple[str, str | None], Route] = {}
        self._placement: Placement | None = None
        self._watch: Watch | None = None
        if self.settings.system_metrics:
            machine = Machine(self.metrics.host_labels(), lambda: self._devices().devices)
            self.metrics.add_collector(machine.collect)
        self.metrics.add_collector(self._collect)

    async def register(self, deployment: Deployment) -> None:
        """Start the workers of `deployment`, and return when every one of them is ready.

        The model is listed, and its requests wait in its queue, from the moment of the call. The
        first version of a model becomes its default.

        Raises:
            ModelError: the version is served already, does not fit its devices, or a worker
                could not load it. Nothing of it is left then.
        """
        if self.closing:
            raise ModelError(f"{deployment.name}: the runner is shutting down")
        served = self._models.get(deployment.name)
        if served is not None and deployment.version in served.versions:
            raise ModelError(f"{deployment.name}: version {deployment.version!r} is served already")
        pool = Pool(
            deployment,
            settings=self.settings,
            placement=self._devices(),
            metrics=self.metrics,
        )
        model = self._models.setdefault(deployment.name, ServedModel())
        model.versions[deployment.version] = pool
        model.default = model.default or deployment.version
        self._make_routes()
        if pool.workforce.uses_gpu:
            self._watch_devices()
        try:
            await pool.start()
        except BaseException:
            self._forget(pool)
            await pool.close(timeout=0)
            raise

    async def unregister(
        self,
        model: str,
        version: str | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - not a cancellation
    ) -> None:
        """Stop serving a version (the default one if None), its accepted requests answered.

        What is unanswered after `timeout` seconds, by default the model's `responseTimeout`, is
        answered with an error.

        Raises:
            ModelNotFoundError: no such model.
            ModelVersionNotFoundError: no such version.
        """
        pool = self._route(model, version).pool
        self._forget(pool)
        await pool.close(timeout=pool.config.response_timeout if timeout is None else timeout)

    async def scale(
        self, model: str, version: str | None, minimum: int, maximum: int | None = None
    ) -> None:
        """Run at least `minimum` workers, and at most `maximum` (None: `minimum`).

        Returns when those that are new are ready, and those that are too many have stopped.

        Raises:
            ModelNotFoundError: no such model.
            ModelVersionNotFoundError: no such version.
            ModelError: a new worker could not load the model.
        """
        pool = self._route(model, version).pool
        await pool.scale(minimum, minimum if maximum is None else maximum)

    def set_default(self, model: str, version: str) -> None:
        """Let paths without a version lead to `version`.

        Raises:
            ModelNotFoundError: no such model.
            ModelVersionNotFoundError: no such version.
        """
        self._route(model, version)
        self._models[model].default = version
        self._make_routes()

    def submit(
        self,
        model: str,
        version: str | None,
        request: Request,
        on_reply: Callable[[Response], None],
        on_piece: Callable[[Response], None] | None = None,
    ) -> Job:
        """Accept `request`; `on_reply` is called once, later, with its answer, unless cancelled.

        Of a handler that streams, `on_piece` is called with every intermediate answer, before
        `on_reply` with the last one (or an error, which ends the stream). The first piece has the
        status and the headers of the whole. Without `on_piece` all of it comes at once.

        A `Response` whose `error` is set carries the message of TorchServe's error body, its
        `error_type` and its status. The buffers of request and response are never reused.

        Raises:
            ModelNotFoundError: no such model.
            ModelVersionNotFoundError: no such version.
            ServiceUnavailableError: the queue is full, no worker will come, or we shut down.
        """
        route = self._routes.get((model, version))
        if route is None:
            raise self._missing(model, version)
        return route.pool.submit(request, route.tally, on_reply, on_piece)

    def cancel(self, job: Job) -> None:
        """Forget `job`, whose client is gone: it is not run if no worker holds it yet."""
        job.owner.cancel(job)

    def hold(self, job: Job) -> None:
        """Have the worker of `job`, which streams, wait: its client does not keep up.

        It waits in what it sends next, with everything else that it answers, until `release`, or
        until the job is answered or cancelled.
        """
        job.owner.hold(job)

    def release(self, job: Job) -> None:
        """Let the worker of a job that was held go on."""
        job.owner.release(job)

    async def stream(
        self, model: str, version: str | None, request: Request
    ) -> AsyncIterator[Response]:
        """Answer `request` piece by piece, the last one being the handler's return value.

        Who is slow to take the pieces holds their worker. Closing the iterator cancels the request.

        Raises:
            RequestError: as `submit` does.
        """
        pieces = PieceQueue(self, model, version, request)
        try:
            async for piece in pieces:
                yield piece
        finally:
            pieces.close()

    async def predict(self, model: str, version: str | None, request: Request) -> Response:
        """Answer `request`; cancelling the call cancels the request.

        Raises:
            RequestError: as `submit` does.
        """
        reply: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        job = self.submit(
            model,
            version,
            request,
            lambda response: None if reply.done() else reply.set_result(response),
        )
        try:
            return await reply
        except asyncio.CancelledError:
            self.cancel(job)
            raise

    def record_of(self, model: str, version: str | None = None) -> BatchRecord:
        """Return what was seen of the batches of a version, the default one if None.

        Raises:
            ModelNotFoundError: no such model.
            ModelVersionNotFoundError: no such version.
        """
        return self._route(model, version).pool.record

    def describe(self, model: str, version: str | None = None) -> list[dict[str, Any]]:
        """Return TorchServe's describe objects: one version, the default one, or `"all"`.

        Raises:
            ModelNotFoundError: no such model.
            ModelVersionNotFoundError: no such version.
        """
        if version == "all" and model in self._models:
            pools = [pool for _, pool in sorted(self._models[model].versions.items())]
        else:
            pools = [self._route(model, version).pool]
        return [describe_pool(pool) for pool in pools]

    def explain_batching(self, model: str, version: str | None = None) -> dict[str, Any]:
        """Return what is known of a version's batches (of the default one's if None), and why.

        Raises:
            ModelNotFoundError: no such model.
            ModelVersionNotFoundError: no such version.
        """
        pool = self._route(model, version).pool
        head = {"modelName": model, "modelVersion": pool.deployment.version}
        return head | pool.explain_batching()

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Say whether this (model, version) is served, or about to be."""
        name, version = key
        return name in self._models and version in self._models[name].versions

    def versions(self, model: str, version: str | None = None) -> tuple[str, list[str]]:
        """Return the default version of `model`, and all of them, sorted.

        Raises:
            ModelNotFoundError: no such model.
            ModelVersionNotFoundError: there is no `version`.
        """
        self._route(model, version)
        served = self._models[model]
        return served.default, sorted(served.versions)

    def list_models(self) -> list[dict[str, str]]:
        """Return `modelName` and `modelUrl` of every model's default version, sorted by name."""
        return [
            {"modelName": name, "modelUrl": model.versions[model.default].deployment.url}
            for name, model in sorted(self._models.items())
        ]

    def sole_startup_model(self) -> str | None:
        """Return the one model that was there from the start; None if there are several."""
        names = [
            name
            for name, model in self._models.items()
            if model.versions[model.default].deployment.loaded_at_startup
        ]
        return names[0] if len(names) == 1 else None

    def health(self) -> Health:
        """Say what can answer, and why the rest cannot."""
        return Health(
            models={
                name: {
                    version: pool.health(default=version == model.default)
                    for version, pool in model.versions.items()
                }
                for name, model in self._models.items()
            },
            closing=self.closing,
        )

    async def close(self, *, timeout: float = 30) -> None:  # noqa: ASYNC109 - not a cancellation
        """Answer what was accepted, for at most `timeout` seconds, then stop every worker.

        From the moment of the call `submit` refuses. No process of ours is left afterwards.
        """
        self.closing = True
        pools = self._list_pools()
        for pool in pools:
            pool.closing = True
        await asyncio.gather(*(pool.close(timeout=timeout) for pool in pools))
        if self._watch is not None:
            await self._watch.close()

    def _collect(self) -> Iterator[Family]:
        """Yield what we measure beyond TorchServe."""
        pools, hostname = self._list_pools(), self.metrics.hostname
        yield from collect_devices(pools, self._placement, hostname)
        yield from collect_batches(pools, hostname)
        yield from collect_scaling(pools, hostname)

    def _list_pools(self) -> list[Pool]:
        return [pool for model in self._models.values() for pool in model.versions.values()]

    def _devices(self) -> Placement:
        if self._placement is None:
            self._placement = Placement(discover(self.settings.environ), free=read_free)
            self._placement.on_lost = self._evict
        return self._placement

    def _watch_devices(self) -> None:
        """Look after the GPUs from now on."""
        if self._watch is None:
            self._watch = Watch(self._devices())
        self._watch.start()

    def _evict(self, device: Device) -> None:
        """End the workers on a device that is lost."""
        reason = self._devices().lost[device.uuid]
        for pool in self._list_pools():
            pool.workforce.evict(device, reason)

    def _route(self, model: str, version: str | None) -> Route:
        route = self._routes.get((model, version))
        if route is None:
            raise self._missing(model, version)
        return route

    def _missing(self, model: str, version: str | None) -> RequestError:
        if self.closing:
            return ServiceUnavailableError("the runner is shutting down")
        if model not in self._models:
            return ModelNotFoundError(f"Model not found: {model}")
        return ModelVersionNotFoundError(
            f"Model version: {version} does not exist for model: {model}"
        )

    def _forget(self, pool: Pool) -> None:
        """Route nothing to `pool` any more; it may have been unregistered while it loaded."""
        name, version = pool.deployment.name, pool.deployment.version
        model = self._models.get(name)
        if model is None or model.versions.get(version) is not pool:
            return
        del model.versions[version]
        if model.default == version:
            model.default = min(model.versions, default="")
        if not model.versions:
            del self._models[name]
        self._make_routes()

    def _make_routes(self) -> None:
        """Write out every path, so that finding a model is one look-up."""
        routes: dict[tuple[str, str | None], Route] = {}
        for name, model in self._models.items():
            for version, pool in model.versions.items():
                routes[name, version] = Route(pool, self.metrics.tally(name, version))
            default = model.versions[model.default]
            routes[name, None] = Route(default, self.metrics.tally(name, None))
        self._routes = routes
