"""What becomes of requests and models when a GPU fails under real workers, on a faked NVML."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from hatch_mar.errors import ModelError
from hatch_mar.serve import Deployment, Response, Service
from hatch_mar.serve.devices import watch
from hatch_mar.serve.devices.discovery import Device, find_lost
from tests.support.fake_nvml import FakeNvml

Maker = Callable[..., Deployment]
Runner = Callable[..., None]
Submit = Callable[..., "asyncio.Future[Response]"]

GPU_WORK = """
    import os

    FAULTS = {
        b"assert": "CUDA error: device-side assert triggered",
        b"illegal": "CUDA error: an illegal memory access was encountered",
        b"lost": "CUDA error: unknown error",
    }

    def handle(data, context):
        if data is None:
            return None
        for row in data:
            if bytes(row["body"]) in FAULTS:
                raise RuntimeError(FAULTS[bytes(row["body"])])
            if bytes(row["body"]) == b"full" and len(data) > 2:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [f"{os.environ['CUDA_VISIBLE_DEVICES']} {os.getpid()}"] * len(data)
"""
"""Says on which GPU and in which process it runs; fails as CUDA does."""

OVERLAPPED = GPU_WORK.replace("def handle", "async def handle")
BROKEN_FIRST = """
    import os

    def handle(data, context):
        if data is None:
            if os.environ["CUDA_VISIBLE_DEVICES"] in BROKEN:
                raise RuntimeError("No CUDA GPUs are available")
            return None
        return [os.environ["CUDA_VISIBLE_DEVICES"]] * len(data)
"""


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """Two GPUs."""
    fake = FakeNvml(2)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


async def where(reply: asyncio.Future[Response]) -> tuple[str, str]:
    response = await reply
    assert response.status == 200
    device, pid = bytes(response.body).decode().split()
    return device, pid


async def becomes(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - other processes bring it about
            await asyncio.sleep(0.01)


class TestContext:
    @pytest.mark.parametrize("order", ["assert", "illegal"])
    def test_the_batch_is_told_and_another_worker_answers_the_rest(
        self,
        nvml: FakeNvml,
        make_deployment: Maker,
        run_service: Runner,
        submit: Submit,
        order: str,
    ) -> None:
        async def test(service: Service) -> None:
            _, before = await where(submit(service, "a"))
            failed, *others = (submit(service, body) for body in (order, "b", "c"))
            response = await failed
            assert (response.status, bytes(response.body)) == (507, b"Out of resources")
            answers = {await where(other) for other in others}
            assert before not in {pid for _, pid in answers}
            (worker,) = service.health().models["m"]["1.0"].workers
            assert worker.deaths == 1
            assert worker.reason.startswith("its CUDA context failed: RuntimeError: CUDA error: ")

        run_service(test, make_deployment(GPU_WORK, deviceIds=[0]), workers=1)

    @pytest.mark.parametrize(
        ("source", "config"),
        [(OVERLAPPED, {"asyncCommunication": True}), (GPU_WORK, {"continuousBatching": True})],
    )
    def test_in_other_loops_too(  # noqa: PLR0917 - fixtures
        self,
        nvml: FakeNvml,
        make_deployment: Maker,
        run_service: Runner,
        submit: Submit,
        source: str,
        config: dict[str, Any],
    ) -> None:
        async def test(service: Service) -> None:
            assert (await submit(service, "assert")).status == 507
            assert (await submit(service, "a")).status == 200
            (worker,) = service.health().models["m"]["1.0"].workers
            assert worker.deaths == 1

        run_service(test, make_deployment(source, **config), workers=1)

    def test_on_the_cpu_nobody_is_replaced(
        self, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            assert (await submit(service, "assert")).status == 507
            assert service.health().models["m"]["1.0"].workers[0].deaths == 0

        run_service(test, make_deployment(GPU_WORK, deviceType="cpu"))


class TestDevice:
    def test_workers_of_a_lost_device_move(
        self,
        nvml: FakeNvml,
        make_deployment: Maker,
        run_service: Runner,
        submit: Submit,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(watch, "WATCH_SECONDS", 3600)  # it is the worker who raises doubts

        async def test(service: Service) -> None:
            assert (await where(submit(service, "a")))[0] == "GPU-0"
            nvml.lost["GPU-0"] = nvml.NVML_ERROR_GPU_IS_LOST
            failed, other = submit(service, "lost"), submit(service, "b")
            assert (await failed).status == 507
            await other  # if the loss shows late, it is answered by a process that is ended then
            async with asyncio.timeout(60):
                while (await submit(service, "c")).status != 200:
                    pass
            await becomes(
                lambda: (
                    [one.device for one in service.health().models["m"]["1.0"].workers] == ["gpu:1"]
                )
            )
            assert (await where(submit(service, "d")))[0] == "GPU-1"
            assert 'hatch_mar_gpu_lost{device="GPU-0",gpu="0"' in service.metrics.expose()

        run_service(test, make_deployment(GPU_WORK), workers=1)

    def test_where_there_is_no_other_the_reason_is_told_until_it_is_back(
        self, nvml: FakeNvml, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            nvml.lost["GPU-0"] = nvml.NVML_ERROR_GPU_IS_LOST
            await submit(service, "lost")
            said = "gpu:0 is lost (NVML: GPU is lost); there is no other GPU that it may use"
            await becomes(lambda: said in service.health().models["m"]["1.0"].reason)
            assert not service.health().ready
            nvml.lost.clear()
            waiting = submit(service, "a")
            service._devices().on_doubt()
            assert (await where(waiting))[0] == "GPU-0"

        run_service(test, make_deployment(GPU_WORK, deviceIds=[0]), workers=1)

    def test_one_on_which_no_worker_can_begin_is_left(
        self, nvml: FakeNvml, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        source = "BROKEN = ['GPU-0']\n" + BROKEN_FIRST.replace("\n    ", "\n")

        async def test(service: Service) -> None:
            assert bytes((await submit(service, "a")).body) == b"GPU-1"
            (worker,) = service.health().models["m"]["1.0"].workers
            assert (worker.device, worker.deaths) == ("gpu:1", 3)

        run_service(test, make_deployment(source), workers=1)

    def test_if_it_is_the_only_one_the_model_is_refused(
        self, nvml: FakeNvml, make_deployment: Maker, run_service: Runner
    ) -> None:
        source = "BROKEN = ['GPU-0']\n" + BROKEN_FIRST.replace("\n    ", "\n")

        async def test(service: Service) -> None:
            with pytest.raises(ModelError, match=r"gpu:0 is lost \(3 workers in a row"):
                await service.register(make_deployment(source, deviceIds=[0]))

        run_service(test, workers=1)

    def test_what_nvml_has_lost(self, nvml: FakeNvml) -> None:
        devices = [Device(index=index, uuid=f"GPU-{index}") for index in range(3)]
        nvml.lost["GPU-0"] = nvml.NVML_ERROR_NOT_SUPPORTED  # trouble of another kind
        assert find_lost(devices) == {"GPU-2": "NVML: Not Found"}
        nvml.dead = True
        assert find_lost(devices) is None


FRUGAL = """
    import sys
    from types import SimpleNamespace

    MIB = 1 << 20
    PEAKS = {"allocated_bytes.all.peak": 180 * MIB, "reserved_bytes.all.peak": 190 * MIB}

    sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(
        is_initialized=lambda: True,
        memory_stats=lambda device: PEAKS,
        get_device_properties=lambda device: SimpleNamespace(total_memory=1000 * MIB),
    ))

    def handle(data, context):
        return data and [row["body"] for row in data]
"""
"""Has PyTorch say what a worker on a GPU would hear from it."""


class TestMemory:
    def test_what_a_worker_takes_is_published(
        self,
        nvml: FakeNvml,
        make_deployment: Maker,
        run_service: Runner,
        submit: Submit,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async def test(service: Service) -> None:
            (worker,) = service.describe("m")[0]["workers"]
            memory = {"allocatedPeakMB": 180, "reservedPeakMB": 190, "totalMB": 1000}
            assert (worker["batchCap"], worker["gpuMemory"]) == (1, memory)
            name = "hatch_mar_gpu_memory_reserved_peak_megabytes"
            assert f'{name}{{model_name="m",model_version="1.0",worker=' in service.metrics.expose()
            assert "system.maxGPUMemory is 200 MB, of which it has taken 190 MB" in caplog.text

        run_service(test, make_deployment(FRUGAL, system={"maxGPUMemory": 200}), workers=1)

    def test_the_cap_reaches_the_door(
        self, nvml: FakeNvml, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            replies = [submit(service, "full") for _ in range(8)]
            assert {(await reply).status for reply in replies} == {200}
            await becomes(lambda: service.describe("m")[0]["workers"][0].get("batchCap") == 2)
            text = service.metrics.expose(["hatch_mar_out_of_memory_total", "hatch_mar_batch_cap"])
            assert 'hatch_mar_batch_cap{model_name="m",model_version="1.0"' in text
            assert "} 2.0\n" in text

        deployment = make_deployment(GPU_WORK, batchSize=8, isolate=True, maxBatchDelay=5000)
        run_service(test, deployment, workers=1)

    def test_a_model_that_others_leave_no_room_for_is_refused(
        self, nvml: FakeNvml, make_deployment: Maker, run_service: Runner
    ) -> None:
        nvml.used = {"GPU-0": 700, "GPU-1": 700}

        async def test(service: Service) -> None:
            with pytest.raises(ModelError, match="700 MB taken by other programs; 300 MB are free"):
                await service.register(make_deployment(GPU_WORK, system={"maxGPUMemory": 400}))

        run_service(test, workers=1)
