"""A model, tried: loaded in a real worker process as a runner would, and asked its golden examples.

Nothing listens: only we can ask it. What the handler prints goes to standard error.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hatch_mar.cli.fetching import told
from hatch_mar.errors import RequestError
from hatch_mar.model.golden import (
    describe_failure,
    find_difference,
    largest_difference,
    make_request,
)
from hatch_mar.serve import Service, ServiceSettings, make_root, prepare, remove_rundirs
from hatch_mar.weights.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hatch_mar.archive.read import Archive
    from hatch_mar.archive.seal import Example
    from hatch_mar.cli.options import DeviceChoice
    from hatch_mar.serve import Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model said to one golden example."""

    example: Example
    body: bytes
    failure: str | None
    """How it is an error; None if it is an answer."""
    difference: str | None
    """Where it differs from what its author recorded, in words; None if it does not."""
    largest: float | None
    """By how much a number in it is off at most; None where nothing can be measured."""

    @property
    def passed(self) -> bool:
        """Whether it is what its author recorded, within the tolerance."""
        return self.failure is None and self.difference is None

    @property
    def fatal(self) -> bool:
        """Whether a runner would not serve the model because of it."""
        return not self.passed and self.example.policy == "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What became of a model that was loaded."""

    device: str
    """`cpu`, or `gpu:N` with the physical number."""
    seconds: float
    """From the start of its process until it could answer."""
    memory: int
    """Bytes that the process held then, on the machine; not on its GPU."""
    answers: tuple[Answer, ...] = ()
    unsteady: tuple[str, ...] = ()
    """Inputs of examples that were answered differently when they were asked again."""


def try_out(archive: Archive, *, device: DeviceChoice, rounds: int = 0) -> Trial:
    """Load the model of `archive`, and ask it every golden example `rounds` times.

    Raises:
        ArchiveError: the archive is broken.
        WeightsError: weights that it refers to cannot be fetched.
        ModelError: the model cannot be loaded; with the handler's own traceback.
    """
    root = make_root()
    try:
        deployment = prepare_trial(archive, root, device)
        settings = ServiceSettings(workers=1, device=device[0], check_examples=False)
        with own_stdout():
            return asyncio.run(_run(deployment, settings, rounds))
    finally:
        remove_rundirs(root)


def prepare_trial(archive: Archive, root: Path, device: DeviceChoice) -> Deployment:
    """Make what a runner would start, on the device that was asked for.

    Raises:
        ArchiveError: the archive is broken.
        WeightsError: weights that it refers to cannot be fetched.
    """
    deployment = prepare(
        archive, root=root, cache=Cache(), watch=lambda each: told(each.target, each.size)
    )
    if device[1] is None:
        return deployment
    return replace(deployment, config=replace(deployment.config, device_ids=device[1]))


async def _run(deployment: Deployment, settings: ServiceSettings, rounds: int) -> Trial:
    service = Service(settings=settings)
    started = time.monotonic()
    try:
        await service.register(deployment)
        seconds = time.monotonic() - started
        memory = service.describe(deployment.name)[0]["workers"][0]["memoryUsage"]
        workers = service.health().models[deployment.name][deployment.version].workers
        turns = [await _ask_all(service, deployment) for _ in range(rounds)]
    finally:
        await service.close(timeout=5)
    unsteady = {
        first.example.input: None
        for turn in turns[1:]
        for first, again in zip(turns[0], turn, strict=True)
        if not first.failure and _compare(first.example, first.body, again.body) is not None
    }
    return Trial(
        device=workers[0].device,
        seconds=seconds,
        memory=memory,
        answers=tuple(turns[0]) if turns else (),
        unsteady=tuple(unsteady),
    )


async def _ask_all(service: Service, deployment: Deployment) -> list[Answer]:
    examples = deployment.seal.examples if deployment.seal else ()
    return [await _ask(service, deployment, example) for example in examples]


async def _ask(service: Service, deployment: Deployment, example: Example) -> Answer:
    """Ask one example, as a client would."""
    body, failure = b"", None
    request = make_request(example, (deployment.directory / example.input).read_bytes())
    expected = (deployment.directory / example.output).read_bytes()
    try:
        response = await service.predict(deployment.name, deployment.version, request)
    except RequestError as error:  # no worker is left to answer
        failure = f"answered {error.status} {error}"
    else:
        body, failure = bytes(response.body), describe_failure(response)
    return Answer(
        example=example,
        body=body,
        failure=failure,
        difference=None if failure else _compare(example, expected, body),
        largest=None if failure else largest_difference(expected, body),
    )


def _compare(example: Example, expected: bytes, got: bytes) -> str | None:
    return find_difference(expected, got, rtol=example.rtol, atol=example.atol)


@contextmanager
def own_stdout() -> Iterator[None]:
    """Keep standard output for what we say: workers, which inherit it, write to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
