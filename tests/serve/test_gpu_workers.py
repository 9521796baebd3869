"""Workers on a real GPU: too little memory, a failed assertion, two models side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hatch_mar.serve import Deployment, Response, Service
from hatch_mar.serve.devices.discovery import discover

Maker = Callable[..., Deployment]
Runner = Callable[..., None]
Submit = Callable[..., "asyncio.Future[Response]"]

HANDLER = """
    import os

    import torch

    def handle(data, context):
        if data is None:
            return None
        device = f"cuda:{context.system_properties['gpu_id']}"
        if any(bytes(row["body"]) == b"assert" for row in data):
            table = torch.zeros(4, device=device)
            return [table[torch.tensor([99], device=device)].tolist()]
        megabytes = sum(int(bytes(row["body"])) for row in data)
        taken = torch.ones(megabytes * 2**20, dtype=torch.uint8, device=device)
        return [f"{int(taken[:1].sum())} {os.getpid()}"] * len(data)
"""
"""Takes as many MB of the GPU as its requests say, or has a kernel's assertion fail."""


@pytest.fixture(autouse=True)
def _needs_gpu() -> None:
    if not discover({}):
        pytest.skip("no GPU")


def worker_of(service: Service, model: str = "m") -> dict[str, Any]:
    worker: dict[str, Any] = service.describe(model)[0]["workers"][0]
    return worker


async def becomes(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - another process brings it about
            await asyncio.sleep(0.01)


@pytest.mark.gpu
def test_a_batch_without_room_is_answered_in_smaller_ones(
    make_deployment: Maker, run_service: Runner, submit: Submit
) -> None:
    async def test(service: Service) -> None:
        replies = [submit(service, "100") for _ in range(8)]
        assert [(await reply).status for reply in replies] == [200] * 8
        await becomes(lambda: worker_of(service)["batchCap"] == 4)
        memory = worker_of(service)["gpuMemory"]
        assert 400 <= memory["allocatedPeakMB"] <= memory["reservedPeakMB"] <= 512
        assert (await submit(service, "600")).status == 507
        assert (await submit(service, "100")).status == 200
        assert worker_of(service)["batchCap"] == 4  # one that is too large alone teaches nothing

    config = {"batchSize": 8, "maxBatchDelay": 2000, "isolate": True}
    deployment = make_deployment(HANDLER, system={"maxGPUMemory": 512}, **config)
    run_service(test, deployment, workers=1)


@pytest.mark.gpu
def test_a_failed_assertion_ends_one_worker_and_no_other(
    make_deployment: Maker, run_service: Runner, submit: Submit
) -> None:
    async def test(service: Service) -> None:
        before = {worker.pid for worker in service.health().models["m"]["1.0"].workers}
        response = await submit(service, "assert")
        assert (response.status, bytes(response.body)) == (507, b"Out of resources")
        await becomes(
            lambda: sum(one.deaths for one in service.health().models["m"]["1.0"].workers) == 1
        )
        after = {worker.pid for worker in service.health().models["m"]["1.0"].workers}
        assert len(before & after) == 1
        replies = [submit(service, "1") for _ in range(8)]
        assert [(await reply).status for reply in replies] == [200] * 8

    run_service(test, make_deployment(HANDLER, deviceIds=[0]), workers=2)


@pytest.mark.gpu
def test_two_models_share_a_gpu_within_their_limits(
    make_deployment: Maker, run_service: Runner, submit: Submit
) -> None:
    async def test(service: Service) -> None:
        replies = [submit(service, "200", model) for model in ("one", "two") * 4]
        assert [(await reply).status for reply in replies] == [200] * 8
        assert (await submit(service, "400", "one")).status == 507
        assert (await submit(service, "200", "two")).status == 200
        for model in ("one", "two"):
            await becomes(lambda model=model: "gpuMemory" in worker_of(service, model))  # type: ignore[misc]
            assert worker_of(service, model)["gpuMemory"]["reservedPeakMB"] <= 300

    deployments = [
        make_deployment(HANDLER, name=name, deviceIds=[0], system={"maxGPUMemory": 300})
        for name in ("one", "two")
    ]
    run_service(test, *deployments, workers=1)
