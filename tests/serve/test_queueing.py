"""Who waits, for how long, and who goes together with whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hatch_mar.errors import (
    ServiceUnavailableError,
)
from hatch_mar.serve import Deployment, Request, Response, Service

Maker = Callable[..., Deployment]
Runner = Callable[..., None]
Submit = Callable[..., "asyncio.Future[Response]"]
Say = Callable[..., Request]


class TestQueue:
    def test_it_is_bounded(
        self, obedient: Maker, run_service: Runner, submit: Submit, appears: Any
    ) -> None:
        deployment = obedient(jobQueueSize=2)

        async def test(service: Service) -> None:
            running = submit(service, "until go")
            await appears(deployment.directory / "go.waiting")
            waiting = [submit(service, "a"), submit(service, "b")]
            with pytest.raises(ServiceUnavailableError) as caught:
                submit(service, "c", version="1.0")
            assert str(caught.value) == (
                'Model "m" Version 1.0" has no worker to serve inference request. Please use '
                "scale workers API to add workers. If this is a sequence inference, please check "
                "if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
            )
            assert caught.value.retry_after == 1
            with pytest.raises(ServiceUnavailableError, match=r'^Model "m" has no worker'):
                submit(service, "c")
            (description,) = service.describe("m")
            assert description["jobQueueStatus"] == {"remainingCapacity": 0, "pendingRequests": 2}
            (deployment.directory / "go").touch()
            assert [(await reply).status for reply in (running, *waiting)] == [200] * 3

        run_service(test, deployment)

    def test_tickets_are_for_idle_workers(
        self, obedient: Maker, run_service: Runner, submit: Submit
    ) -> None:
        deployment = obedient(useJobTicket=True)

        async def test(service: Service) -> None:
            running = submit(service, "until go")
            with pytest.raises(ServiceUnavailableError):
                submit(service, "a")
            (deployment.directory / "go").touch()
            assert (await running).status == 200

        run_service(test, deployment)

    def test_a_client_that_waited_too_long_is_told(
        self, obedient: Maker, run_service: Runner, submit: Submit
    ) -> None:
        deployment = obedient(clientTimeoutInMills=50)

        async def test(service: Service) -> None:
            running, held, waiting = (submit(service, body) for body in ("until go", "a", "b"))
            reply = await waiting
            assert (reply.status, reply.error_type) == (408, "RequestTimeoutException")
            assert bytes(reply.body) == b"no answer within clientTimeoutInMills=50"
            # Whoever is being served is told too: the worker's answer would come too late.
            assert [(await running).status, (await held).status] == [408, 408]
            (deployment.directory / "go").touch()
            while service.health().models["m"]["1.0"].workers[0].state == "busy":  # noqa: ASYNC110
                await asyncio.sleep(0.001)

        run_service(test, deployment)
        assert (deployment.directory / "seen").read_text() == "until go\na\n"

    def test_a_cancelled_request_is_not_run(
        self, obedient: Maker, run_service: Runner, say: Say, submit: Submit
    ) -> None:
        deployment = obedient()

        async def test(service: Service) -> None:
            running, held = submit(service, "until go"), submit(service, "held")
            call = asyncio.create_task(service.predict("m", None, say("cancelled")))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            service.cancel(held.job)  # type: ignore[attr-defined]
            (deployment.directory / "go").touch()
            await running
            assert (await submit(service, "last")).status == 200
            assert not held.done()

        run_service(test, deployment)
        assert (deployment.directory / "seen").read_text() == "until go\nheld\nlast\n"


class TestBatches:
    def batches(self, deployment: Deployment) -> list[int]:
        return [int(line) for line in (deployment.directory / "batches").read_text().split()]

    def test_what_waits_goes_together(
        self, obedient: Maker, run_service: Runner, submit: Submit, appears: Any
    ) -> None:
        deployment = obedient(batchSize=4)

        async def test(service: Service) -> None:
            running = submit(service, "until go")
            await appears(deployment.directory / "go.waiting")
            waiting = [submit(service, str(number)) for number in range(6)]
            (deployment.directory / "go").touch()
            assert [(await reply).status for reply in (running, *waiting)] == [200] * 7

        run_service(test, deployment)
        assert self.batches(deployment) == [1, 4, 2]

    def test_what_comes_together_goes_together(
        self, obedient: Maker, run_service: Runner, submit: Submit
    ) -> None:
        deployment = obedient(batchSize=8)

        async def test(service: Service) -> None:
            await asyncio.gather(*(submit(service, str(number)) for number in range(5)))

        run_service(test, deployment)
        assert self.batches(deployment) == [5]

    def test_a_delay_that_is_asked_for_is_kept(
        self, obedient: Maker, run_service: Runner, submit: Submit
    ) -> None:
        deployment = obedient(batchSize=2, maxBatchDelay=60_000)

        async def test(service: Service) -> None:
            first = submit(service, "first")
            await asyncio.sleep(0.05)
            assert not first.done()
            await asyncio.gather(first, submit(service, "second"))

        run_service(test, deployment)
        assert self.batches(deployment) == [2]

    def test_a_delay_ends(self, obedient: Maker, run_service: Runner, submit: Submit) -> None:
        deployment = obedient(batchSize=2, maxBatchDelay=20)

        async def test(service: Service) -> None:
            assert (await submit(service, "alone")).status == 200

        run_service(test, deployment)

    def test_a_describe_goes_alone(self, obedient: Maker, run_service: Runner, say: Say) -> None:
        deployment = obedient(batchSize=8)

        async def test(service: Service) -> None:
            requests = [say("a"), say("b"), say("c", describe=True), say("d")]
            replies = await asyncio.gather(
                *(service.predict("m", None, request) for request in requests)
            )
            assert [bytes(reply.body) for reply in replies] == [b"a", b"b", b"c", b"d"]

        run_service(test, deployment)
        assert self.batches(deployment) == [2, 1, 1]
