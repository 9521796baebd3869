"""A model, measured: batches of growing size, each asked of a real worker, and what they cost."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from hatch_mar.cli.trial import own_stdout, prepare_trial
from hatch_mar.errors import RequestError
from hatch_mar.model.golden import describe_failure, make_request
from hatch_mar.serve import Service, ServiceSettings, make_root, remove_rundirs
from hatch_mar.serve.batching.costs import Fit, fit_cost
from hatch_mar.serve.devices.discovery import discover
from hatch_mar.serve.tuning import Sweep, Tuning, describe_device, digest_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hatch_mar.archive.read import Archive
    from hatch_mar.cli.options import DeviceChoice
    from hatch_mar.model.protocol import Request, Response
    from hatch_mar.serve import Deployment
    from hatch_mar.serve.devices.discovery import Device

WARM_BATCHES = 3
"""Batches of each size that are not measured: memory is found, kernels are chosen."""
LEAST_BATCHES = 5
LONGEST = 60.0
"""Seconds after which an answer is not waited for any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a sweep has come to."""

    device: str
    """`cpu`, or `gpu:N` with the physical number."""
    batch_size: int
    """What model-config.yaml says."""
    sweeps: tuple[Sweep, ...]
    fit: Fit
    tuning: Tuning | None
    """None where the sizes do not tell what a batch costs."""
    failure: str = ""
    """Why no larger batches were asked: how the first that failed did."""


def measure(
    archive: Archive,
    *,
    device: DeviceChoice,
    sizes: Sequence[int],
    seconds: float,
    inputs: Sequence[Request] = (),
    told: Callable[[int], None] = lambda _: None,
) -> Measured:
    """Load the model of `archive` and ask batches of each of `sizes` for `seconds`.

    They are made of `inputs`, or of the model's golden examples; `told` hears of each size. The
    first size that the model does not answer is the last.

    Raises:
        ArchiveError: the archive is broken.
        WeightsError: weights that it refers to cannot be fetched.
        ModelError: the model cannot be loaded; with the handler's own traceback.
    """
    root = make_root()
    try:
        deployment = prepare_trial(archive, root, device)
        settings = ServiceSettings(
            workers=1, device=device[0], check_examples=False, job_queue_size=2 * max(sizes)
        )
        with own_stdout():
            return asyncio.run(
                _run(deployment, settings, sizes, seconds, inputs or _examples_of(deployment), told)
            )
    finally:
        remove_rundirs(root)


def _examples_of(deployment: Deployment) -> list[Request]:
    return [
        make_request(example, (deployment.directory / example.input).read_bytes())
        for example in (deployment.seal.examples if deployment.seal else ())
    ]


async def _run(  # noqa: PLR0917 - called once, a line above
    deployment: Deployment,
    settings: ServiceSettings,
    sizes: Sequence[int],
    seconds: float,
    inputs: Sequence[Request],
    told: Callable[[int], None],
) -> Measured:
    largest = max(sizes)
    config = replace(
        deployment.config,
        batch_size=largest,
        max_batch_delay=0,
        job_queue_size=2 * largest,
        min_workers=None,
        max_workers=None,
    )
    service = Service(settings=settings)
    sweeps: dict[int, list[float]] = {}
    failure = ""
    try:
        await service.register(replace(deployment, config=config))
        for size in sizes:
            told(size)
            times, failure = await _sweep(service, deployment, inputs, size, seconds)
            if failure:
                break
            for number, taken in times:
                sweeps.setdefault(number, []).append(taken)
        worker = service.health().models[deployment.name][deployment.version].workers[0]
    finally:
        await service.close(timeout=5)
    fit = fit_cost([(size, taken) for size, each in sweeps.items() for taken in each])
    measured = tuple(
        Sweep(size=size, count=len(times), seconds=median(times))
        for size, times in sorted(sweeps.items())
    )
    tuning = None
    if fit.cost is not None:
        tuning = Tuning(
            model=digest_model(deployment),
            device=describe_device(_find_device(worker.device)),
            cost=fit.cost,
            batches=measured,
        )
    return Measured(
        device=worker.device,
        batch_size=deployment.config.batch_size,
        sweeps=measured,
        fit=fit,
        tuning=tuning,
        failure=failure,
    )


async def _sweep(
    service: Service, deployment: Deployment, inputs: Sequence[Request], size: int, seconds: float
) -> tuple[list[tuple[int, float]], str]:
    """Ask batches of `size`; return (size, seconds) of each, and how they failed, if they did.

    Large inputs travel in several pieces, and a worker begins with what it has: then some of the
    batches are smaller.
    """
    times: list[tuple[int, float]] = []
    record = service.record_of(deployment.name, deployment.version)
    asked, until = 0, 0.0
    requests = [replace(inputs[turn % len(inputs)], id=f"tune-{turn}") for turn in range(size)]
    while asked < WARM_BATCHES + LEAST_BATCHES or time.monotonic() < until:
        # Requests of one turn of the loop leave together: an idle worker takes them as one batch.
        before = record.count
        ask = (service.predict(deployment.name, deployment.version, each) for each in requests)
        try:
            responses = await asyncio.wait_for(asyncio.gather(*ask), LONGEST)
        except TimeoutError:
            return [], f"a batch of {size}: no answer within {LONGEST:g} seconds"
        except RequestError as error:  # refused: sequences have small queues, for one
            return [], f"a batch of {size}: {error}"
        failure = _find_failure(responses)
        if failure:
            return [], f"a batch of {size}: {failure}"
        asked += 1
        if asked == WARM_BATCHES:
            until = time.monotonic() + seconds
        elif asked > WARM_BATCHES:
            times += record.times()[before - record.count :]
    return times, ""


def _find_device(name: str) -> Device | None:
    return next((each for each in discover(os.environ) if str(each) == name), None)


def _find_failure(responses: Sequence[Response]) -> str | None:
    return next((said for each in responses if (said := describe_failure(each))), None)
