"""Tiny models for real worker processes. None of them imports torch: a worker starts in 0.1 s."""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.modelconfig import read_model_config
from hatch_mar.serve import Deployment, Part, Request, Response, Service, ServiceSettings

DeploymentMaker = Callable[..., Deployment]
ServiceRunner = Callable[..., Any]

ECHO = """
    def handle(data, context):
        return None if data is None else [row["body"] for row in data]
"""

OBEDIENT = """
    import os, signal, sys, time
    from pathlib import Path

    def obey(order, directory):
        verb, _, value = bytes(order).decode().partition(" ")
        if verb == "exit":
            sys.exit(int(value))
        if verb == "vanish":
            os._exit(int(value))
        if verb == "signal":
            os.kill(os.getpid(), int(value))
        if verb == "fork":
            if not (child := os.fork()):
                time.sleep(float(value))
                os._exit(0)
            os.kill(child, signal.SIGTERM)
            return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        if verb == "sleep":
            time.sleep(float(value))
        if verb == "until":
            (directory / f"{value}.waiting").touch()
            while not (directory / value).exists():
                time.sleep(0.002)
        if verb == "pid":
            return str(os.getpid())
        return order

    def handle(data, context):
        if data is None:
            return
        directory = Path(context.system_properties["model_dir"])
        with (directory / "batches").open("a") as log:
            print(len(data), file=log)
        with (directory / "seen").open("a") as log:
            for row in data:
                print(bytes(row["body"]).decode(), file=log)
        return [obey(row["body"], directory) for row in data]
"""
"""A handler that does what the request says, and writes down what it was asked."""


@pytest.fixture
def make_deployment(tmp_path: Path) -> DeploymentMaker:
    """Return a function that writes a handler into a run directory of its own."""

    def make(
        source: str = ECHO, *, name: str = "m", version: str = "1.0", **config: Any
    ) -> Deployment:
        directory = tmp_path / f"{name}-{version}"
        directory.mkdir()
        (directory / "handler.py").write_text(textwrap.dedent(source))
        return Deployment(
            name=name,
            version=version,
            directory=directory,
            handler="handler.py",
            config=read_model_config(config),
            manifest=Manifest(model_name=name, model_version=version, handler="handler.py"),
            url=f"{name}.mar",
        )

    return make


@pytest.fixture
def obedient(make_deployment: DeploymentMaker) -> DeploymentMaker:
    """Return a function that makes a deployment of the obedient handler."""

    def make(**config: Any) -> Deployment:
        return make_deployment(OBEDIENT, **config)

    return make


@pytest.fixture
def run_service() -> ServiceRunner:
    """Return a function that runs a coroutine with a service, and closes it whatever happens.

    Afterwards no process of ours may be left.
    """

    def run(
        test: Callable[[Service], Awaitable[None]],
        *deployments: Deployment,
        **settings: Any,
    ) -> None:
        async def main() -> None:
            service = Service(settings=replace(ServiceSettings(), **settings))
            try:
                for deployment in deployments:
                    await service.register(deployment)
                await test(service)
            finally:
                await service.close(timeout=10)

        # Other tests' servers may live as long as the session, in this very process.
        before = set(psutil.Process().children())
        asyncio.run(main())
        assert set(psutil.Process().children()) <= before

    return run


@pytest.fixture
def say() -> Callable[[str | bytes], Request]:
    """Return a function that makes a request of a body."""

    def make(body: str | bytes, **fields: Any) -> Request:
        data = body.encode() if isinstance(body, str) else body
        return Request("id", (), [Part("body", "", data)], **fields)

    return make


@pytest.fixture
def submit(say: Callable[[str | bytes], Request]) -> Callable[..., asyncio.Future[Response]]:
    """Return a function that submits a body and returns the future of its answer."""

    def send(
        service: Service, body: str | bytes, model: str = "m", version: str | None = None
    ) -> asyncio.Future[Response]:
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        job = service.submit(model, version, say(body), future.set_result)
        future.job = job  # type: ignore[attr-defined]
        return future

    return send


@pytest.fixture
def appears() -> Callable[[Path], Awaitable[None]]:
    """Return a function that waits until a file is there."""

    async def wait(path: Path) -> None:
        async with asyncio.timeout(120):
            while not path.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
                await asyncio.sleep(0.002)

    return wait


@pytest.fixture
def wait_until_gone() -> Callable[[int], None]:
    """Return a function that waits for the end of a process that is not our child."""

    def wait(pid: int) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
            except OSError:
                return
            if stat.rpartition(")")[2].split()[0] == "Z":
                return
            time.sleep(0.01)
        pytest.fail(f"process {pid} is still there")

    return wait
