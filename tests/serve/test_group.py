"""Models in several processes, which torch's elastic launcher starts, on CPU and over gloo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path  # noqa: TC003 - fixtures' types are looked at
from typing import Any

import psutil
import pytest

from hatch_mar.archive.modelconfig import read_model_config
from hatch_mar.archive.seal import Example, Seal
from hatch_mar.errors import HandlerError, ModelError, WorkerStartError
from hatch_mar.serve import Deployment, Response, Service, ServiceSettings
from hatch_mar.serve.devices.discovery import Device
from hatch_mar.serve.devices.placement import Placement
from hatch_mar.serve.launch import count_ranks, make_environ, make_options

Maker = Callable[..., Deployment]
Runner = Callable[..., None]
Submit = Callable[..., asyncio.Future[Response]]

TWO = {"parallelType": "tp", "torchrun": {"nproc-per-node": 2}}

TENSOR_PARALLEL = """
    import os
    from collections import OrderedDict
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel
    from torch.distributed.tensor.parallel import parallelize_module

    def make_network():
        layers = [("into", torch.nn.Linear(4, 8)), ("out", torch.nn.Linear(8, 2))]
        return torch.nn.Sequential(OrderedDict([layers[0], ("bend", torch.nn.ReLU()), layers[1]]))

    class Handler:
        def initialize(self, context):
            self.rank = int(os.environ["RANK"])
            mesh = init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),))
            torch.manual_seed(7)
            plan = {"into": ColwiseParallel(), "out": RowwiseParallel()}
            self.model = parallelize_module(make_network(), mesh, plan)
            self.initialized = True

        def handle(self, data, context):
            rows = [[float(v) for v in bytes(row["body"]).split()] for row in data]
            with torch.no_grad():
                found = self.model(torch.tensor(rows))
            held = self.model.into.weight.to_local().shape
            return [{"rank": self.rank, "held": list(held), "found": row.tolist()} for row in found]
"""
"""A network whose layers are divided among the ranks: none of them could answer alone."""

OBEDIENT = """
    import json, os, signal, sys, time
    from pathlib import Path

    rank = int(os.environ["RANK"])

    class Handler:
        def initialize(self, context):
            here = Path(context.system_properties["model_dir"])
            (here / f"new-{rank}").write_text(str(os.getpid()))
            (here / f"new-{rank}").replace(here / f"pid-{rank}")
            order = here / "load"
            if order.exists() and order.read_text().startswith(f"{rank} "):
                self.obey(order.read_text().partition(" ")[2])
            self.here = here
            self.initialized = True

        def obey(self, order):
            verb, _, value = order.partition(" ")
            if verb == "exit":
                sys.exit(int(value))
            if verb == "raise":
                raise RuntimeError(value)
            if verb == "signal":
                os.kill(os.getpid(), int(value))
            if verb == "sleep":
                time.sleep(float(value))

        def handle(self, data, context):
            with (self.here / f"seen-{rank}").open("a") as log:
                print(json.dumps([bytes(row["body"]).decode() for row in data]), file=log)
            for row in data:
                who, _, order = bytes(row["body"]).decode().partition(" ")
                if who == str(rank):
                    self.obey(order)
            names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE OMP_NUM_THREADS MASTER_ADDR"
            told = {name: os.environ.get(name) for name in names.split()}
            return [{**told, "gpu": context.system_properties["gpu_id"]} for row in data]
"""
"""A handler without torch, in which each rank does what it is told, and writes down what it saw."""


def read_json(response: Response) -> Any:
    assert response.status == 200, bytes(response.body)
    return json.loads(bytes(response.body))


def seen(deployment: Deployment, rank: int) -> list[list[str]]:
    lines = (deployment.directory / f"seen-{rank}").read_text().splitlines()
    return [json.loads(line) for line in lines]


def pids(deployment: Deployment) -> list[int]:
    return [int(path.read_text()) for path in deployment.directory.glob("pid-*")]


def processes_in(directory: Path) -> list[int]:
    """Return the processes whose working directory it is: those of a group, whoever they are."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(directory):
                found.append(process.pid)
    return found


def assert_gone(numbers: list[int], wait_until_gone: Callable[[int], None]) -> None:
    assert numbers
    for number in numbers:
        wait_until_gone(number)


async def until_ready(service: Service, deaths: int) -> None:
    async with asyncio.timeout(60):
        while True:
            (worker,) = service.health().models["m"]["1.0"].workers
            if worker.deaths == deaths and worker.state == "ready":
                return
            await asyncio.sleep(0.02)


def test_a_tensor_parallel_network_on_two_ranks(
    make_deployment: Maker, run_service: Runner, submit: Submit
) -> None:
    async def test(service: Service) -> None:
        replies = [submit(service, f"{number} 2 3 4") for number in range(6)]
        found = [read_json(reply) for reply in await asyncio.gather(*replies)]
        assert {one["rank"] for one in found} == {0}
        assert {tuple(one["held"]) for one in found} == {(4, 4)}
        assert len({tuple(one["found"]) for one in found}) == 6
        alone = read_json(await submit(service, "0 2 3 4", "whole"))
        assert alone["held"] == [8, 4]
        assert found[0]["found"] == pytest.approx(alone["found"], abs=1e-5)

    whole = {"parallelType": "tp", "torchrun": {"nproc-per-node": 1}}
    run_service(
        test,
        make_deployment(TENSOR_PARALLEL, batchSize=4, **TWO),
        make_deployment(TENSOR_PARALLEL, name="whole", **whole),
    )


def test_every_rank_sees_every_batch_and_the_first_one_answers(
    make_deployment: Maker, run_service: Runner, submit: Submit, tmp_path: Path
) -> None:
    async def test(service: Service) -> None:
        large = "x" * 300_000
        bodies = ["a", "b", large, "c", "d"]
        replies = await asyncio.gather(*(submit(service, body) for body in bodies))
        for reply in replies:
            assert read_json(reply) == {
                "RANK": "0",
                "LOCAL_RANK": "0",
                "WORLD_SIZE": "3",
                "LOCAL_WORLD_SIZE": "3",
                "OMP_NUM_THREADS": "2",
                "MASTER_ADDR": "127.0.0.1",
                "gpu": None,
            }
        await service.close(timeout=10)
        batches = seen(deployment, 0)
        assert sorted(body for batch in batches for body in batch) == sorted(bodies)
        assert seen(deployment, 1) == seen(deployment, 2) == batches

    torchrun = {"nproc-per-node": 3, "OMP_NUMBER_THREADS": 2}
    deployment = make_deployment(
        OBEDIENT, parallelType="tp", parallelLevel=7, torchrun=torchrun, batchSize=3
    )
    run_service(test, deployment)


def test_the_stages_of_a_pipeline_are_fed_by_the_first(
    make_deployment: Maker, run_service: Runner, submit: Submit
) -> None:
    async def test(service: Service) -> None:
        read_json(await submit(service, "a"))

    deployment = make_deployment(OBEDIENT, parallelType="pp", parallelLevel=2)
    run_service(test, deployment)
    assert seen(deployment, 0) == [["a"]]
    assert not (deployment.directory / "seen-1").exists()


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("1 signal 9", "rank 1 (pid {1}): killed by signal SIGKILL"),
        pytest.param("1 exit 3", "rank 1 (pid {1}): exit code 3", marks=pytest.mark.slow),
        ("0 signal 11", "rank 0 (pid {0}): killed by signal SIGSEGV"),
        pytest.param("1 exit 0", "rank 1 (pid {1}): exit code 1", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_dies_ends_the_group_and_another_takes_its_place(
    *,
    order: str,
    reason: str,
    make_deployment: Maker,
    run_service: Runner,
    submit: Submit,
    wait_until_gone: Callable[[int], None],
) -> None:
    async def test(service: Service) -> None:
        before = [int((deployment.directory / f"pid-{rank}").read_text()) for rank in range(2)]
        fatal = submit(service, order)
        waiting = [submit(service, body) for body in "abc"]
        await fatal  # answered, one way or another
        await until_ready(service, deaths=1)
        for reply in await asyncio.gather(*waiting):
            assert reply.status in (200, 500)
        assert read_json(await submit(service, "again"))["RANK"] == "0"
        assert not {*before} & {*pids(deployment)}
        assert_gone(before, wait_until_gone)
        (worker,) = service.health().models["m"]["1.0"].workers
        assert worker.reason == reason.format(*before)

    deployment = make_deployment(OBEDIENT, **TWO)
    run_service(test, deployment)
    assert_gone(pids(deployment), wait_until_gone)


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        ("1 raise no such shard", HandlerError, "rank 1: .*RuntimeError: no such shard"),
        ("0 raise no such shard", HandlerError, "RuntimeError: no such shard"),
        ("1 signal 9", WorkerStartError, "rank 1 .*: killed by signal SIGKILL"),
    ],
)
def test_a_rank_that_cannot_load_its_part(
    *,
    order: str,
    error: type[ModelError],
    message: str,
    make_deployment: Maker,
    run_service: Runner,
    wait_until_gone: Callable[[int], None],
) -> None:
    async def test(service: Service) -> None:
        with pytest.raises(error, match=message):
            await service.register(deployment)

    deployment = make_deployment(OBEDIENT, **TWO)
    (deployment.directory / "load").write_text(order)
    run_service(test)
    assert_gone(pids(deployment), wait_until_gone)


@pytest.mark.parametrize("seconds", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_group_that_does_not_load_in_time_leaves_no_process(
    seconds: int,
    make_deployment: Maker,
    run_service: Runner,
    wait_until_gone: Callable[[int], None],
) -> None:
    """After a second there is little more than the launcher, after eight all are loading."""

    async def test(service: Service) -> None:
        message = f"not loaded within startupTimeout={seconds} seconds"
        with pytest.raises(WorkerStartError, match=message):
            await service.register(deployment)

    deployment = make_deployment(OBEDIENT, **TWO, startupTimeout=seconds)
    (deployment.directory / "load").write_text("1 sleep 600")
    run_service(test)
    for pid in processes_in(deployment.directory):
        wait_until_gone(pid)


def test_a_rank_that_hangs_is_replaced_with_its_group(
    make_deployment: Maker, run_service: Runner, submit: Submit
) -> None:
    async def test(service: Service) -> None:
        for body in ("1 sleep 600", "x" * 400_000):  # the second one finds the socket full
            stuck = await asyncio.wait_for(submit(service, body), 60)
            assert stuck.status in (200, 500)
        await until_ready(service, deaths=1)
        assert read_json(await submit(service, "again"))["RANK"] == "0"

    run_service(test, make_deployment(OBEDIENT, **TWO, responseTimeout=3))


def test_a_service_that_closes_leaves_no_process_of_a_group_that_is_loading(
    make_deployment: Maker,
    run_service: Runner,
    appears: Callable[[Path], Any],
    wait_until_gone: Callable[[int], None],
) -> None:
    async def test(service: Service) -> None:
        loading = asyncio.ensure_future(service.register(deployment))
        await appears(deployment.directory / "pid-1")
        await service.close(timeout=1)
        with pytest.raises(ModelError, match="it was stopped"):
            await loading

    deployment = make_deployment(OBEDIENT, **TWO)
    (deployment.directory / "load").write_text("1 sleep 600")
    run_service(test)
    assert_gone(pids(deployment), wait_until_gone)


def test_a_group_dies_with_the_launcher(
    make_deployment: Maker,
    run_service: Runner,
    wait_until_gone: Callable[[int], None],
) -> None:
    async def test(service: Service) -> None:
        (worker,) = service.health().models["m"]["1.0"].workers
        assert worker.pid is not None
        before = pids(deployment)
        told = service.describe("m", None)[0]["workers"][0]
        assert told["memoryUsage"] > sum(psutil.Process(pid).memory_info().rss for pid in before)
        os.kill(worker.pid, signal.SIGKILL)
        await until_ready(service, deaths=1)
        assert_gone(before, wait_until_gone)

    deployment = make_deployment(OBEDIENT, **TWO)
    run_service(test, deployment)


def test_golden_examples_are_asked_of_every_rank(
    make_deployment: Maker, run_service: Runner
) -> None:
    async def test(service: Service) -> None:
        assert service.health().ready

    deployment = make_deployment(OBEDIENT, **TWO)
    (deployment.directory / "in").write_text("hello")
    (deployment.directory / "out").write_text("whatever")
    example = Example(
        input="in", output="out", content_type="application/octet-stream", policy="warn"
    )
    deployment = replace(
        deployment,
        seal=Seal(name="m", version="1", runtime="custom", members={}, examples=(example,)),
    )
    run_service(test, deployment)
    assert seen(deployment, 0) == seen(deployment, 1) == [["hello"]]


GPUS = [Device(index=number, uuid=f"GPU-{number}", memory=1000) for number in range(4)]


@pytest.mark.parametrize(
    ("config", "gpus", "ranks"),
    [
        ({}, 0, 0),
        ({"parallelLevel": 2}, 0, 0),
        ({"parallelType": "tp"}, 0, 0),
        ({"parallelType": "", "torchrun": {"nproc-per-node": 2}}, 0, 0),
        ({"parallelType": "custom", "torchrun": {"nproc-per-node": 2}}, 0, 0),
        ({"parallelType": "tp", "parallelLevel": 2}, 0, 2),
        ({"parallelType": "pp", "torchrun": {}}, 0, 1),
        ({"parallelType": "pp", "torchrun": {"nproc-per-node": 0}}, 0, 1),
        ({"parallelType": "pp", "torchrun": {"nproc-per-node": "2"}}, 0, 1),
        ({"parallelType": "pptp", "parallelLevel": 2, "torchrun": {"nproc-per-node": 4}}, 4, 4),
    ],
)
def test_how_many_ranks(
    config: dict[str, Any], gpus: int, ranks: int, make_deployment: Maker
) -> None:
    assert count_ranks(configured(make_deployment, config), gpus) == ranks


@pytest.mark.parametrize(
    ("config", "gpus", "flaw"),
    [
        ({"nproc-per-node": 4}, 2, "torchrun.nproc-per-node: 4 processes need as many GPUs, and"),
        ({"nproc-per-node": 1, "nnodes": 2}, 0, "torchrun.nnodes: a worker's processes are all on"),
        ({"nproc-per-node": 9999}, 0, "torchrun.nproc-per-node: 9999 is more than 256"),
    ],
)
def test_ranks_that_cannot_be(
    config: dict[str, Any], gpus: int, flaw: str, make_deployment: Maker
) -> None:
    deployment = configured(make_deployment, {"parallelType": "tp", "torchrun": config})
    with pytest.raises(ModelError, match=flaw):
        count_ranks(deployment, gpus)


def test_groups_share_the_gpus_out(make_deployment: Maker) -> None:
    deployment = configured(make_deployment, {"parallelType": "tp", "parallelLevel": 2})
    placement, settings = Placement(GPUS), ServiceSettings(environ={})
    groups = placement.place("m", 2, device_ids=None, memory=None, width=2)
    environs = [make_environ(deployment, settings, one, placement, 2) for one in groups]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environs] == ["GPU-0,GPU-1", "GPU-2,GPU-3"]
    assert environs[0]["OMP_NUM_THREADS"] == "1"
    assert environs[0]["GLOO_SOCKET_IFNAME"] == environs[0]["NCCL_SOCKET_IFNAME"]


def test_what_the_operator_set_stays(make_deployment: Maker) -> None:
    deployment = configured(make_deployment, {"parallelType": "tp", "parallelLevel": 2})
    settings = ServiceSettings(environ={"NCCL_SOCKET_IFNAME": "eth0"})
    environ = make_environ(deployment, settings, (), Placement([]), 2)
    assert environ["NCCL_SOCKET_IFNAME"] == "eth0"


def test_sections_of_the_engines_reach_the_handler_untouched(make_deployment: Maker) -> None:
    sections: dict[str, Any] = {
        "pippy": {"chunks": 1, "input_names": ["input_ids"], "split_points": None},
        "deepspeed": {"config": "ds.json", "checkpoint": "checkpoints.json"},
        "micro_batching": {"micro_batch_size": 4, "parallelism": {"inference": 2}},
        "handler": {"a": [1, {"b": 2.5}]},
    }
    deployment = configured(make_deployment, sections)
    options = make_options(deployment, ServiceSettings(), gpu=False, check_examples=False)
    assert {name: options["config"][name] for name in sections} == sections
    assert not deployment.config.warnings


def configured(make_deployment: Maker, config: dict[str, Any]) -> Deployment:
    return replace(make_deployment(), config=read_model_config(config))
