"""A running service explains the batches that it really had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hatch_mar.errors import BadRequestError, ServiceUnavailableError
from hatch_mar.serve import Deployment, Part, Request, Response, Service
from hatch_mar.serve.batching.costs import fit_cost

Maker = Callable[..., Deployment]
Runner = Callable[..., None]
Submit = Callable[..., "asyncio.Future[Response]"]

SLEEPING = """
    import time
    from pathlib import Path

    def handle(data, context):
        if data is None:
            return
        began = time.monotonic()
        time.sleep(0.006 + 0.002 * len(data))
        took = time.monotonic() - began
        with (Path(context.system_properties["model_dir"]) / "truth").open("a") as log:
            print(len(data), took, file=log)
        return ["ok"] * len(data)
"""
PICKY = """
    def handle(data, context):
        bodies = [bytes(row["body"]) for row in data or ()]
        if b"boom" in bodies:
            raise ValueError("boom")
        return bodies
"""


def with_deadline(body: str, milliseconds: str) -> Request:
    headers = (("x-deadline-ms", milliseconds),)
    return Request("id", headers, [Part("body", "", body.encode())])


def test_the_fit_finds_what_the_handler_takes(
    make_deployment: Maker, run_service: Runner, submit: Submit
) -> None:
    deployment = make_deployment(SLEEPING, batchSize=8)
    sizes = [1, 2, 4, 8, 3, 6] * 6

    async def test(service: Service) -> None:
        for size in sizes:
            replies = [submit(service, "a") for _ in range(size)]
            assert {(await reply).status for reply in replies} == {200}
        found = service.explain_batching("m", "1.0")
        assert (found["modelName"], found["modelVersion"]) == ("m", "1.0")
        published = service.metrics.expose(["hatch_mar_batch_fixed_milliseconds"])
        assert float(published.rpartition(" ")[2]) == pytest.approx(found["cost"]["fixed"], 1e-3)
        assert found["batchSizes"] == {str(size): 6 for size in sorted(set(sizes))}
        assert found["seen"]["requests"] == sum(sizes)
        assert 0 < found["seen"]["utilization"] <= 1
        lines = (deployment.directory / "truth").read_text().split("\n")
        truth = fit_cost([(int(n), float(took)) for n, took in map(str.split, lines[:-1])])
        assert truth.cost is not None
        for size in (1, 8):
            seconds = (found["cost"]["fixed"] + found["cost"]["perItem"] * size) / 1000
            assert seconds == pytest.approx(truth.cost.of(size), rel=0.1)

    run_service(test, deployment)


def test_a_halved_batch_is_counted(
    make_deployment: Maker, run_service: Runner, submit: Submit
) -> None:
    async def test(service: Service) -> None:
        replies = [submit(service, body) for body in ("a", "b", "boom", "c")]
        assert [(await reply).status for reply in replies] == [200, 200, 503, 200]
        async with asyncio.timeout(30):
            while service.explain_batching("m")["counts"]["halvedBatches"] < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        name, labels = "hatch_mar_batches_halved", 'model_name="m",model_version="1.0",hostname='
        published = service.metrics.expose([name])
        assert service.metrics.expose().count(published) == 1
        assert published.startswith(
            f"# HELP {name} Failed batches that were run again in halves\n"
            f"# TYPE {name} counter\n{name}{{{labels}"
        )
        assert published.endswith('",} 2.0\n')

    run_service(test, make_deployment(PICKY, batchSize=4, isolate=True))


def test_a_deadline_that_passes_in_the_queue(
    obedient: Maker, run_service: Runner, submit: Submit, appears: Any
) -> None:
    deployment = obedient()

    async def test(service: Service) -> None:
        running = submit(service, "until go")
        await appears(deployment.directory / "go.waiting")
        held = [submit(service, "a"), submit(service, "b")]  # at the worker already
        waiting = asyncio.create_task(service.predict("m", None, with_deadline("c", "20")))
        reply = await waiting
        assert (reply.status, reply.error_type) == (504, "DeadlineExceededException")
        assert bytes(reply.body) == b"no answer within the request's own X-Deadline-Ms"
        (deployment.directory / "go").touch()
        assert [(await one).status for one in (running, *held)] == [200] * 3
        assert service.explain_batching("m")["counts"]["deadlinesMissed"] == 1

    run_service(test, deployment)
    assert (deployment.directory / "seen").read_text() == "until go\na\nb\n"


def test_a_deadline_that_cannot_be_met_is_refused_at_the_door(
    obedient: Maker, run_service: Runner, submit: Submit, appears: Any
) -> None:
    deployment = obedient()

    async def test(service: Service) -> None:
        await submit(service, "sleep 0.2")
        running = submit(service, "until go")
        await appears(deployment.directory / "go.waiting")
        waiting = [submit(service, "a") for _ in range(8)]
        with pytest.raises(ServiceUnavailableError, match="has no worker to serve") as caught:
            await service.predict("m", None, with_deadline("late", "100"))
        assert caught.value.retry_after in {2, 3}  # eight of 0.2 s, and what is left of the first
        (deployment.directory / "go").touch()
        assert [(await one).status for one in (running, *waiting)] == [200] * 9
        assert service.explain_batching("m")["counts"]["refusedWait"] == 1
        reply = await service.predict("m", None, with_deadline("in time", "60000"))
        assert reply.status == 200

    run_service(test, deployment)
    assert "late" not in (deployment.directory / "seen").read_text()


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf", ""])
def test_a_deadline_that_is_none(obedient: Maker, run_service: Runner, value: str) -> None:
    async def test(service: Service) -> None:
        with pytest.raises(BadRequestError) as caught:
            await service.predict("m", None, with_deadline("a", value))
        assert str(caught.value) == (
            f"X-Deadline-Ms: must be a number of milliseconds above 0, not {value!r}"
        )

    run_service(test, obedient())


def test_a_client_that_is_gone_is_counted(
    obedient: Maker, run_service: Runner, submit: Submit
) -> None:
    deployment = obedient()

    async def test(service: Service) -> None:
        running, held, waiting = (submit(service, body) for body in ("until go", "a", "b"))
        service.cancel(waiting.job)  # type: ignore[attr-defined]
        (deployment.directory / "go").touch()
        assert [(await running).status, (await held).status] == [200, 200]
        assert service.explain_batching("m")["counts"]["clientsGone"] == 1

    run_service(test, deployment)
