"""`Service` with real workers: the right answer to the right requester, and the truth otherwise."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hatch_mar.errors import (
    BadRequestError,
    ModelError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    ServiceUnavailableError,
)
from hatch_mar.serve import Deployment, Request, Response, Service

Maker = Callable[..., Deployment]
Runner = Callable[..., None]
Submit = Callable[..., "asyncio.Future[Response]"]
Appears = Callable[[Path], Awaitable[None]]
Say = Callable[..., Request]
WHOAMI = (
    "def handle(data, ctx): return data and ['{} {}'.format(ctx.model_name, VERSION)] * len(data)"
)


def test_a_request_is_answered(make_deployment: Maker, run_service: Runner, say: Say) -> None:
    async def test(service: Service) -> None:
        reply = await service.predict("m", None, say("hello"))
        assert (reply.status, bytes(reply.body), reply.error) == (200, b"hello", False)

    run_service(test, make_deployment())


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("workers", [1, 2])
def test_everybody_gets_their_own_answer(
    make_deployment: Maker, run_service: Runner, say: Say, batch_size: int, workers: int
) -> None:
    async def test(service: Service) -> None:
        bodies = [b"%d" % number for number in range(500)]
        replies = await asyncio.gather(*(service.predict("m", "1.0", say(body)) for body in bodies))
        assert [bytes(reply.body) for reply in replies] == bodies

    deployment = make_deployment(batchSize=batch_size)
    run_service(test, deployment, workers=workers, job_queue_size=1000)


def test_large_bodies(make_deployment: Maker, run_service: Runner, say: Say) -> None:
    async def test(service: Service) -> None:
        bodies = [bytes([number]) * (5 << 20) for number in range(4)]
        replies = await asyncio.gather(*(service.predict("m", None, say(body)) for body in bodies))
        assert [bytes(reply.body) for reply in replies] == bodies

    run_service(test, make_deployment())


def test_headers_reach_the_handler_as_sent(make_deployment: Maker, run_service: Runner) -> None:
    source = "def handle(data, ctx): return data and [ctx.get_request_header(0, 'X-ODD-case')]"

    async def test(service: Service) -> None:
        reply = await service.predict("m", None, Request("id", [("X-ODD-case", "yes")], []))
        assert bytes(reply.body) == b"yes"

    run_service(test, make_deployment(source))


def test_what_cannot_be_sent_is_the_clients_fault(
    make_deployment: Maker, run_service: Runner, say: Say
) -> None:
    async def test(service: Service) -> None:
        with pytest.raises(BadRequestError, match="zero byte"):
            service.submit("m", None, Request("id", [("X", "a\0b")], []), print)
        reply = await service.predict("m", None, say("hello"))
        assert bytes(reply.body) == b"hello"

    run_service(test, make_deployment())


def test_a_failing_handler_fails_as_in_torchserve(
    make_deployment: Maker, run_service: Runner, say: Say
) -> None:
    async def test(service: Service) -> None:
        reply = await service.predict("m", None, say("hello"))
        assert (reply.status, bytes(reply.body)) == (503, b"Prediction failed")
        assert (reply.error, reply.error_type) == (True, "InternalServerException")

    run_service(test, make_deployment("def handle(data, ctx): return data and 1 / 0"))


def test_a_callback_that_raises_hurts_nobody_else(
    make_deployment: Maker,
    run_service: Runner,
    submit: Submit,
    say: Say,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(service: Service) -> None:
        service.submit("m", None, say("first"), lambda _: 1 / 0)  # type: ignore[arg-type]
        assert (await submit(service, "second")).status == 200

    run_service(test, make_deployment())
    assert "could not be delivered" in caplog.text


def test_numbers_as_keys_survive_in_the_config(
    make_deployment: Maker, run_service: Runner, say: Say
) -> None:
    source = "def handle(data, ctx): return data and [ctx.model_yaml_config['handler']]"

    async def test(service: Service) -> None:
        reply = await service.predict("m", None, say(""))
        assert bytes(reply.body) == b'{\n  "1": "one"\n}'

    checking = source.replace(
        "return data and", "assert 1 in ctx.model_yaml_config['handler'];return data and"
    )
    run_service(test, make_deployment(checking, handler={1: "one"}))


class TestModels:
    def test_one_that_is_not_served(self, run_service: Runner, say: Say) -> None:
        async def test(service: Service) -> None:
            with pytest.raises(ModelNotFoundError, match=r"^Model not found: nope$"):
                await service.predict("nope", None, say(""))
            with pytest.raises(ModelNotFoundError):
                service.describe("nope", "all")

        run_service(test)

    def test_a_version_that_is_not_served(
        self, make_deployment: Maker, run_service: Runner, say: Say
    ) -> None:
        async def test(service: Service) -> None:
            message = r"^Model version: 9 does not exist for model: m$"
            with pytest.raises(ModelVersionNotFoundError, match=message):
                await service.predict("m", "9", say(""))

        run_service(test, make_deployment())

    def test_the_first_version_is_the_default(
        self, make_deployment: Maker, run_service: Runner, say: Say
    ) -> None:
        async def test(service: Service) -> None:
            async def ask(version: str | None) -> bytes:
                return bytes((await service.predict("m", version, say(""))).body)

            assert [await ask(None), await ask("1"), await ask("2")] == [b"m 1", b"m 1", b"m 2"]
            service.set_default("m", "2")
            assert await ask(None) == b"m 2"
            assert service.health().models["m"]["2"].default
            with pytest.raises(ModelVersionNotFoundError):
                service.set_default("m", "3")

        versions = [
            make_deployment(f"VERSION = {version}\n{WHOAMI}", version=version)
            for version in ("1", "2")
        ]
        run_service(test, *versions)

    def test_a_version_is_registered_once(
        self, make_deployment: Maker, run_service: Runner, say: Say
    ) -> None:
        deployment = make_deployment()

        async def test(service: Service) -> None:
            with pytest.raises(ModelError, match="served already"):
                await service.register(deployment)
            assert (await service.predict("m", None, say(""))).status == 200

        run_service(test, deployment)

    def test_unregister(self, make_deployment: Maker, run_service: Runner, submit: Submit) -> None:
        async def test(service: Service) -> None:
            accepted = submit(service, "accepted")
            await service.unregister("m")
            assert (await accepted).status == 200
            with pytest.raises(ModelNotFoundError):
                submit(service, "late")
            assert service.list_models() == []

        run_service(test, make_deployment())

    def test_unregister_while_it_loads(self, make_deployment: Maker, run_service: Runner) -> None:
        async def test(service: Service) -> None:
            code = "import time\ntime.sleep(600)\n"
            loading = asyncio.ensure_future(service.register(make_deployment(code, name="late")))
            await asyncio.sleep(0)
            await service.unregister("late")
            with pytest.raises(ModelError, match="stopped while it was loading"):
                await loading

        run_service(test, make_deployment())

    def test_the_default_moves_on_when_it_is_unregistered(
        self, make_deployment: Maker, run_service: Runner, say: Say
    ) -> None:
        async def test(service: Service) -> None:
            await service.unregister("m", "1")
            assert (await service.predict("m", None, say(""))).status == 200

        run_service(test, make_deployment(version="1"), make_deployment(version="2"))

    def test_listing(self, make_deployment: Maker, run_service: Runner) -> None:
        async def test(service: Service) -> None:
            assert service.list_models() == [
                {"modelName": "a", "modelUrl": "a.mar"},
                {"modelName": "b", "modelUrl": "b.mar"},
            ]
            assert [entry["modelName"] for entry in service.describe("a", "all")] == ["a"]

        run_service(test, make_deployment(name="b"), make_deployment(name="a"))


def test_describe(make_deployment: Maker, run_service: Runner) -> None:
    async def test(service: Service) -> None:
        (description,) = service.describe("m")
        (worker,) = description.pop("workers")
        assert list(description) == [
            *("modelName", "modelVersion", "modelUrl", "runtime", "minWorkers", "maxWorkers"),
            *("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout"),
            *("maxRetryTimeoutInSec", "clientTimeoutInMills", "parallelType", "parallelLevel"),
            *("deviceType", "continuousBatching", "useJobTicket", "useVenv", "stateful"),
            *("sequenceMaxIdleMSec", "sequenceTimeoutMSec", "maxNumSequence"),
            *("maxSequenceJobQueueSize", "loadedAtStartup", "jobQueueStatus"),
        ]
        assert description["batchSize"] == 3
        assert description["jobQueueStatus"] == {"remainingCapacity": 7, "pendingRequests": 0}
        assert list(worker) == [
            *("id", "startTime", "status", "memoryUsage", "pid", "gpu", "gpuUsage"),
        ]
        assert worker["status"] == "READY"
        assert worker["memoryUsage"] > 1 << 20
        assert (worker["gpu"], worker["gpuUsage"]) == (False, "N/A")

    run_service(test, make_deployment(batchSize=3, jobQueueSize=7), device="cpu")


class TestClose:
    def test_what_was_accepted_is_answered(
        self, obedient: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            accepted = [submit(service, f"sleep 0.0{number}") for number in range(5)]
            closing = asyncio.create_task(service.close(timeout=30))
            await asyncio.sleep(0)
            with pytest.raises(ServiceUnavailableError):
                submit(service, "late")
            assert not service.health().ready
            await closing
            assert [(await reply).status for reply in accepted] == [200] * 5

        run_service(test, obedient(jobQueueSize=9))

    def test_nobody_waits_for_a_worker_that_hangs(
        self, obedient: Maker, run_service: Runner, submit: Submit, appears: Appears
    ) -> None:
        deployment = obedient()

        async def test(service: Service) -> None:
            running, held, waiting = (submit(service, "until never") for _ in range(3))
            await appears(deployment.directory / "never.waiting")
            await service.close(timeout=0.1)
            assert (await running).status == 500
            assert bytes((await running).body) == b"Worker died."
            for reply in (await held, await waiting):
                assert reply.status in {500, 503}

        run_service(test, deployment)

    def test_nothing_can_be_registered_any_more(
        self, make_deployment: Maker, run_service: Runner
    ) -> None:
        async def test(service: Service) -> None:
            await service.close(timeout=1)
            with pytest.raises(ModelError, match="shutting down"):
                await service.register(make_deployment())

        run_service(test)


class TestScale:
    def test_up_and_down(self, obedient: Maker, run_service: Runner, submit: Submit) -> None:
        deployment = obedient()

        async def test(service: Service) -> None:
            await service.scale("m", None, 3)
            (description,) = service.describe("m")
            assert len(description["workers"]) == description["minWorkers"] == 3
            running = [submit(service, f"until go{number}") for number in range(3)]
            shrinking = asyncio.create_task(service.scale("m", None, 1))
            await asyncio.sleep(0)
            for number in range(3):
                (deployment.directory / f"go{number}").touch()
            await shrinking
            assert [(await reply).status for reply in running] == [200] * 3
            (description,) = service.describe("m")
            assert len(description["workers"]) == 1
            assert (await submit(service, "still there")).status == 200

        run_service(test, deployment)

    def test_to_nothing_and_back(
        self, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            await service.scale("m", None, 0)
            assert service.health().models["m"]["1.0"].state == "scaled-to-zero"
            assert service.health().ready
            with pytest.raises(ServiceUnavailableError):
                submit(service, "nobody")
            await service.scale("m", None, 1)
            assert (await submit(service, "somebody")).status == 200

        run_service(test, make_deployment())


def test_replies_keep_their_bytes(
    make_deployment: Maker, run_service: Runner, submit: Submit
) -> None:
    """What a reply's body is a view of must never be written to again."""

    async def test(service: Service) -> None:
        first = await submit(service, "x" * 1000)
        for _ in range(50):
            await submit(service, "y" * 1000)
        gc.collect()
        assert bytes(first.body) == b"x" * 1000

    run_service(test, make_deployment())


def test_metrics(make_deployment: Maker, run_service: Runner, submit: Submit) -> None:
    async def test(service: Service) -> None:
        await submit(service, "a")
        await submit(service, "b", version="1.0")
        with pytest.raises(ModelNotFoundError):
            submit(service, "c", model="nope")
        text = service.metrics.expose(["ts_inference_requests_total", "WorkerLoadTime"])
        assert 'requests_total{model_name="m",model_version="default",' in text
        assert 'requests_total{model_name="m",model_version="1.0",' in text
        assert "nope" not in text
        assert 'WorkerLoadTime{WorkerName="W-' in text
        latency = service.metrics.expose(["ts_inference_latency_microseconds"])
        queue = service.metrics.expose(["ts_queue_latency_microseconds"])
        assert float(latency.split()[-1]) > float(queue.split()[-1]) >= 0

    run_service(test, make_deployment())


def test_what_a_handler_measures_is_published(
    make_deployment: Maker, run_service: Runner, submit: Submit
) -> None:
    source = """
        def handle(data, ctx):
            if data:
                ctx.metrics.add_counter("Cats", 2)
                return ["ok"]
    """

    async def test(service: Service) -> None:
        await submit(service, "a")
        await submit(service, "b")
        text = ""
        async with asyncio.timeout(30):
            while not text.endswith(" 4.0\n"):
                await asyncio.sleep(0.01)
                text = service.metrics.expose(["Cats"])
        assert 'Cats{ModelName="m",Level="Model",Hostname=' in text

    run_service(test, make_deployment(source))
