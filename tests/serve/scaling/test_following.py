"""Real workers that become more under load, and fewer in silence."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Self

import pytest

from hatch_mar.errors import ModelError, ServiceUnavailableError
from hatch_mar.serve import Deployment, Response, Service
from hatch_mar.serve.scaling import room
from tests.support.fake_nvml import FakeNvml

Maker = Callable[..., Deployment]
Runner = Callable[..., None]
Submit = Callable[..., "asyncio.Future[Response]"]

SLEEPER = """
    import time

    def handle(data, context):
        if data is not None:
            time.sleep(0.02)
            return [row["body"] for row in data]
"""
LINGERER = """
    import atexit, time

    atexit.register(time.sleep, 0.5)

    def handle(data, context):
        return None if data is None else [row["body"] for row in data]
"""
FICKLE = """
    import time
    from pathlib import Path

    def handle(data, context):
        if data is None:
            if Path("broken").exists():
                raise RuntimeError("no more of me")
            return
        time.sleep(0.02)
        return [row["body"] for row in data]
"""
QUICK = {"scaleUpWaitMSec": 10, "scaleUpAfterMSec": 100, "scaleDownAfterMSec": 200}
CLIENTS = 12
PATIENCE = 60


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has to come; the runner works meanwhile."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.005)


def count_ready(service: Service) -> int:
    (description,) = service.describe("m")
    return sum(worker["status"] == "READY" for worker in description["workers"])


def outcomes(service: Service) -> list[str]:
    (description,) = service.describe("m")
    return [decision["outcome"] for decision in description["scaling"]["decisions"]]


class Crowd:
    """Clients that ask one thing after the other, and check every answer."""

    def __init__(self, service: Service, submit: Submit) -> None:
        self.answers = 0
        self._service = service
        self._submit = submit
        self._over = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(CLIENTS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _ask(self, number: int) -> None:
        turn = 0
        while not self._over:
            body = f"{number} {turn}"
            answer = await self._submit(self._service, body)
            assert (answer.status, bytes(answer.body)) == (200, body.encode())
            self.answers += 1
            turn += 1


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing that others do on this machine decide here."""
    monkeypatch.setattr(room, "RESERVE", -math.inf)
    monkeypatch.setattr(room, "WAITS", math.inf)


@pytest.fixture
def sleeper(make_deployment: Maker) -> Maker:
    """Return a function that makes a deployment that is slow without computing."""

    def make(source: str = SLEEPER, **config: Any) -> Deployment:
        return make_deployment(source, minWorkers=1, maxWorkers=3, **{**QUICK, **config})

    return make


def test_load_makes_them_more_and_silence_makes_them_fewer(
    sleeper: Maker, run_service: Runner, submit: Submit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hatch_mar.serve")

    async def test(service: Service) -> None:
        assert count_ready(service) == 1
        async with Crowd(service, submit) as crowd:
            await until(lambda: count_ready(service) == 3)
            seen = crowd.answers
            await until(lambda: crowd.answers > seen + CLIENTS)
            await until(lambda: count_ready(service) == 3)
        await until(lambda: len(service.describe("m")[0]["workers"]) == 1)
        assert (await submit(service, "still there")).status == 200
        scaling = service.describe("m")[0]["scaling"]
        assert scaling["counts"]["up"] >= 2
        assert scaling["counts"]["up"] == scaling["counts"]["down"]
        assert [one["workers"] for one in scaling["decisions"]][:2] == [2, 3]
        assert scaling["decisions"][-1]["reason"].startswith("nobody was busy for ")
        exposed = service.metrics.expose()
        types = [line for line in exposed.splitlines() if line.startswith("# TYPE ")]
        assert len(set(types)) == len(types)
        labels = f'model_name="m",model_version="1.0",hostname="{service.metrics.hostname}",'
        assert f"\nhatch_mar_workers{{{labels}}} 1.0\n" in exposed
        ups = float(scaling["counts"]["up"])
        assert f'hatch_mar_scaling_decisions_total{{{labels}outcome="up",}} {ups}\n' in exposed

    run_service(test, sleeper())
    assert "m 1.0: one worker more, 2 in all: requests have waited " in caplog.text
    assert "m 1.0: one worker less, 1 in all: nobody was busy for " in caplog.text


def test_between_equal_bounds_nothing_is_decided(
    sleeper: Maker, run_service: Runner, submit: Submit
) -> None:
    async def test(service: Service) -> None:
        await service.scale("m", None, 1, 1)
        async with Crowd(service, submit) as crowd:
            await until(lambda: crowd.answers > 3 * CLIENTS)
        assert "scaling" not in service.describe("m")[0]

    run_service(test, sleeper())


def test_the_operator_sets_the_bounds_while_it_follows(
    sleeper: Maker, run_service: Runner, submit: Submit
) -> None:
    async def test(service: Service) -> None:
        async with Crowd(service, submit):
            await until(lambda: count_ready(service) == 3)
            await service.scale("m", None, 2, 2)
            assert count_ready(service) == 2
            await service.scale("m", None, 1, 3)
            await until(lambda: count_ready(service) == 3)
            await service.scale("m", None, 4, 5)
            assert count_ready(service) >= 4

    run_service(test, sleeper(scaleDownAfterMSec=60_000))


def test_a_worker_that_cannot_load_takes_nobody_down(
    sleeper: Maker, run_service: Runner, submit: Submit, caplog: pytest.LogCaptureFixture
) -> None:
    deployment = sleeper(FICKLE)

    async def test(service: Service) -> None:
        (deployment.directory / "broken").touch()
        async with Crowd(service, submit) as crowd:
            await until(lambda: "failed" in outcomes(service))
            seen = crowd.answers
            await until(lambda: crowd.answers > seen + 3 * CLIENTS)
        (description,) = service.describe("m")
        assert len(description["workers"]) == 1
        assert outcomes(service) == ["up", "failed"]
        assert service.health().models["m"]["1.0"].state == "ready"

    run_service(test, deployment)
    (line,) = [one for one in caplog.messages if "could not be had" in one]
    assert "no more of me" in line
    assert line.endswith("; the next try is in 30 s")


@pytest.mark.parametrize(
    "limits",
    [
        ({"RESERVE": 1.0}, " MB are available, of which "),
        ({"WAITS": -1.0, "LEAST_GAIN": math.inf}, " are idle: one more would bring nothing"),
    ],
    ids=["memory", "processors"],
)
def test_without_room_none_is_started(
    sleeper: Maker,
    run_service: Runner,
    submit: Submit,
    limits: tuple[dict[str, float], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    constants, complaint = limits
    for name, value in constants.items():
        monkeypatch.setattr(room, name, value)

    async def test(service: Service) -> None:
        async with Crowd(service, submit):
            await until(lambda: "no-room" in outcomes(service))
        (description,) = service.describe("m")
        assert len(description["workers"]) == 1
        (decision,) = description["scaling"]["decisions"]
        assert complaint in decision["reason"]

    run_service(test, sleeper())


class TestZero:
    def test_it_is_left_alone_unless_the_author_wants_it(
        self, sleeper: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            await service.scale("m", None, 0, 2)
            seen = (await submit(service, "somebody")).status
            await service.scale("m", None, 0, 0)
            await service.scale("m", None, 0, 2)
            with pytest.raises(ServiceUnavailableError):
                submit(service, "nobody")
            assert seen == 200

        run_service(test, sleeper())

    def test_the_first_request_brings_a_worker_and_silence_takes_it(
        self, sleeper: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            await service.scale("m", None, 0, 2)
            for turn in range(3):
                await until(lambda: not service.describe("m")[0]["workers"])
                health = service.health().models["m"]["1.0"]
                assert (health.state, health.ready) == ("scaled-to-zero", True)
                replies = [submit(service, f"{turn} {number}") for number in range(3)]
                assert service.health().ready
                answers = [(await reply).body for reply in replies]
                assert [bytes(body) for body in answers] == [
                    f"{turn} {number}".encode() for number in range(3)
                ]

        run_service(test, sleeper(scaleFromZero=True))

    def test_who_asks_while_the_last_one_leaves_waits_for_the_next(
        self, sleeper: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            await service.scale("m", None, 0, 2)

            def leaving() -> bool:
                states = {worker.state for worker in service.health().models["m"]["1.0"].workers}
                return states == {"stopping"}

            await until(leaving)
            assert (await submit(service, "wait")).status == 200

        run_service(test, sleeper(LINGERER, scaleFromZero=True))

    def test_who_waits_for_a_worker_that_cannot_load_is_told(
        self, sleeper: Maker, run_service: Runner, submit: Submit
    ) -> None:
        deployment = sleeper(FICKLE, scaleFromZero=True)

        async def test(service: Service) -> None:
            await service.scale("m", None, 0, 2)
            await until(lambda: not service.describe("m")[0]["workers"])
            (deployment.directory / "broken").touch()
            assert (await submit(service, "wait")).status == 503
            with pytest.raises(ServiceUnavailableError):
                submit(service, "too soon")

        run_service(test, deployment)


@pytest.mark.parametrize("ids", [None, [1, 0]])
def test_one_more_goes_where_the_fewest_are(
    sleeper: Maker,
    run_service: Runner,
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    ids: list[int] | None,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(2))

    async def test(service: Service) -> None:
        async with Crowd(service, submit):
            await until(lambda: count_ready(service) == 2)
        devices = [worker.device for worker in service.health().models["m"]["1.0"].workers]
        assert sorted(devices[:2]) == ["gpu:0", "gpu:1"]

    config = {} if ids is None else {"deviceIds": ids}
    run_service(test, sleeper(scaleDownAfterMSec=60_000, **config), workers=1)


def test_bounds_that_no_device_has_room_for_are_refused_and_forgotten(
    make_deployment: Maker, run_service: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(1))

    async def test(service: Service) -> None:
        with pytest.raises(ModelError, match="do not fit gpu:0"):
            await service.scale("m", None, 3, 3)
        (description,) = service.describe("m")
        assert (description["minWorkers"], description["maxWorkers"]) == (1, 1)
        assert len(description["workers"]) == 1
        await service.scale("m", None, 2, 2)
        assert count_ready(service) == 2

    run_service(test, make_deployment(SLEEPER, system={"maxGPUMemory": 400}), workers=1)


def test_a_killed_worker_is_replaced_and_counted_once(
    sleeper: Maker, run_service: Runner, submit: Submit
) -> None:
    async def test(service: Service) -> None:
        (worker,) = service.health().models["m"]["1.0"].workers
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: service.health().models["m"]["1.0"].workers[0].deaths == 1)
        await until(lambda: count_ready(service) == 1)
        assert (await submit(service, "back")).status == 200
        assert outcomes(service) == []

    run_service(test, sleeper())
