"""Workers that start, those that do not, and those whose door goes away."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hatch_mar.archive.seal import Example, Seal
from hatch_mar.errors import (
    GoldenError,
    HandlerError,
    ModelError,
    WorkerStartError,
)
from hatch_mar.serve import Deployment, Response, Service

FD_SETSIZE = 1024
"""What `select.select` can look at."""
Maker = Callable[..., Deployment]
Runner = Callable[..., None]
Submit = Callable[..., "asyncio.Future[Response]"]


class TestStart:
    def refused(self, run_service: Runner, deployment: Deployment, **settings: Any) -> ModelError:
        """Register what cannot be registered; return the error."""
        errors: list[ModelError] = []

        async def test(service: Service) -> None:
            with pytest.raises(ModelError) as caught:
                await service.register(deployment)
            errors.append(caught.value)
            assert service.list_models() == []
            assert service.health().models == {}

        run_service(test, **settings)
        return errors[0]

    def test_a_handler_that_raises(self, make_deployment: Maker, run_service: Runner) -> None:
        error = self.refused(run_service, make_deployment("def handle(data, ctx): 1 / 0"))
        assert isinstance(error, HandlerError)
        assert str(error).startswith("m 1.0: handler 'handler.py': ")
        assert "division by zero" in str(error)
        assert 'handler.py", line 1, in handle' in error.traceback

    def test_a_handler_that_is_not_there(self, make_deployment: Maker, run_service: Runner) -> None:
        deployment = make_deployment()
        (deployment.directory / "handler.py").unlink()
        error = self.refused(run_service, deployment)
        assert isinstance(error, HandlerError)
        assert "handler.py" in str(error)
        assert error.traceback == ""

    def test_one_of_several_workers_fails(
        self, make_deployment: Maker, run_service: Runner
    ) -> None:
        source = """
            import os, time

            def handle(data, ctx):
                try:
                    os.mkdir("first")
                except FileExistsError:
                    raise RuntimeError("no room for two")
                time.sleep(600)
        """
        error = self.refused(run_service, make_deployment(source), workers=3)
        assert "no room for two" in str(error)

    def test_a_worker_that_dies_while_loading(
        self, make_deployment: Maker, run_service: Runner
    ) -> None:
        error = self.refused(run_service, make_deployment("import os; os._exit(5)"))
        assert isinstance(error, WorkerStartError)
        assert str(error) == "m 1.0: the worker died while loading: exit code 5"

    def test_a_handler_that_exits(self, make_deployment: Maker, run_service: Runner) -> None:
        error = self.refused(run_service, make_deployment("raise SystemExit(0)"))
        assert str(error) == "m 1.0: handler 'handler.py': importing it failed: SystemExit: 0"
        assert "hatch_mar" not in error.traceback

    def test_a_worker_that_does_not_finish_loading(
        self, make_deployment: Maker, run_service: Runner
    ) -> None:
        source = "import time; time.sleep(600)"
        error = self.refused(run_service, make_deployment(source, startupTimeout=1))
        assert str(error) == "m 1.0: not loaded within startupTimeout=1 seconds"

    def test_an_interpreter_that_is_not_there(
        self, make_deployment: Maker, run_service: Runner, tmp_path: Path
    ) -> None:
        error = self.refused(run_service, make_deployment(), python=str(tmp_path / "python"))
        assert isinstance(error, WorkerStartError)
        assert "could not be started" in str(error)

    def test_gpus_that_are_not_there(self, make_deployment: Maker, run_service: Runner) -> None:
        environ = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        error = self.refused(run_service, make_deployment(), device="gpu", environ=environ)
        assert str(error).startswith("m: no GPU is visible")

    def test_requests_that_waited_for_it_are_told(
        self, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            registering = asyncio.create_task(service.register(make_deployment("1 / 0")))
            await asyncio.sleep(0)
            assert service.health().models["m"]["1.0"].state == "loading"
            waiting = submit(service, "a")
            with pytest.raises(HandlerError):
                await registering
            assert (await waiting).error_type == "ServiceUnavailableException"

        run_service(test)

    def test_a_cancelled_registration_leaves_nothing(
        self, make_deployment: Maker, run_service: Runner
    ) -> None:
        async def test(service: Service) -> None:
            deployment = make_deployment("import time; time.sleep(600)")
            registering = asyncio.create_task(service.register(deployment))
            await asyncio.sleep(0.01)
            registering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await registering
            assert service.list_models() == []

        run_service(test)

    def test_scaling_up_to_what_does_not_load(
        self, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        source = """
            import os

            def handle(data, ctx):
                if data is None:
                    os.mkdir("first")
                return data and ["ok"]
        """

        async def test(service: Service) -> None:
            with pytest.raises(HandlerError):
                await service.scale("m", None, 2)
            (description,) = service.describe("m")
            assert len(description["workers"]) == description["minWorkers"] == 1
            assert (await submit(service, "a")).status == 200

        run_service(test, make_deployment(source))


DOOR = """
    import asyncio, signal, sys
    from pathlib import Path
    from hatch_mar.archive.modelconfig import read_model_config
    from hatch_mar.serve import Deployment, Part, Request, Service

    async def main():
        service = Service()
        await service.register(
            Deployment(
                name="m", version="1.0", directory=Path(sys.argv[1]), handler="handler.py",
                config=read_model_config({}),
            )
        )
        print(service.describe("m")[0]["workers"][0]["pid"], flush=True)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        request = Request("id", (), [Part("body", "", sys.argv[2].encode())])
        reply = asyncio.create_task(service.predict("m", None, request))
        await stop.wait()
        await service.close(timeout=30)
        print(bytes((await reply).body).decode(), flush=True)

    asyncio.run(main())
"""


@pytest.fixture
def door(obedient: Maker) -> Any:
    """Return a function that runs a service in a process group of its own."""

    def start(order: str) -> tuple[subprocess.Popen[str], Path]:
        deployment = obedient()
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(DOOR), str(deployment.directory), order],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            start_new_session=True,
        )
        return process, deployment.directory

    return start


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.005)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel must tell the worker")
def test_workers_die_with_their_door(door: Any, wait_until_gone: Callable[[int], None]) -> None:
    process, directory = door("until never")
    with process:
        pid = int(process.stdout.readline())
        wait_for(directory / "never.waiting")
        process.kill()
        wait_until_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_group_are_the_doors_business(
    door: Any, number: signal.Signals, wait_until_gone: Callable[[int], None]
) -> None:
    process, directory = door("until go")
    with process:
        pid = int(process.stdout.readline())
        wait_for(directory / "go.waiting")
        if number is signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            os.kill(pid, number)
            process.send_signal(signal.SIGINT)
        (directory / "go").touch()
        assert process.stdout.read() == "until go\n"
        assert process.wait() == 0
    wait_until_gone(pid)


def test_what_a_handler_forks_can_be_ended(
    obedient: Maker, run_service: Runner, submit: Submit
) -> None:
    """`multiprocessing.Process.terminate` is a SIGTERM, sent at any moment after the fork."""

    async def test(service: Service) -> None:
        replies = [await submit(service, "fork 30") for _ in range(5)]
        assert [bytes(reply.body) for reply in replies] == [b"-15"] * 5

    run_service(test, obedient())


def test_a_worker_may_be_given_a_socket_with_a_high_number(
    obedient: Maker, run_service: Runner, submit: Submit
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * FD_SETSIZE), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(FD_SETSIZE)]

    async def test(service: Service) -> None:
        assert [(await submit(service, body)).status for body in "abc"] == [200, 200, 200]
        (worker,) = service.health().models["m"]["1.0"].workers
        assert worker.deaths == 0

    try:
        run_service(test, obedient())
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestExamples:
    def deployment(self, maker: Maker, expected: str) -> Deployment:
        deployment = maker()
        (deployment.directory / "in.txt").write_text("hello")
        (deployment.directory / "out.txt").write_text(expected)
        example = Example(input="in.txt", output="out.txt", content_type="application/octet-stream")
        seal = Seal(name="m", version="1.0", runtime="custom", members={}, examples=(example,))
        return replace(deployment, seal=seal)

    def test_right(self, make_deployment: Maker, run_service: Runner, submit: Submit) -> None:
        async def test(service: Service) -> None:
            assert (await submit(service, "a")).status == 200

        run_service(test, self.deployment(make_deployment, "hello"))

    def test_wrong(self, make_deployment: Maker, run_service: Runner) -> None:
        async def test(service: Service) -> None:
            with pytest.raises(GoldenError, match=r"^m 1\.0: .*in\.txt"):
                await service.register(self.deployment(make_deployment, "good bye"))

        run_service(test)

    def test_not_asked_for(
        self, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            assert (await submit(service, "a")).status == 200

        deployment = self.deployment(make_deployment, "good bye")
        run_service(test, deployment, check_examples=False)


DOUBLING = """
import torch
from hatch_mar import handler_factory

class Net(torch.nn.Module):
    def forward(self, x):
        return x * 2

handler = handler_factory(Net, lambda sample: torch.tensor(sample))
"""


class TestWarming:
    def test_it_is_done_when_the_worker_is_ready_and_describe_tells_how(
        self, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        pytest.importorskip("torch")
        section = {"precision": "bfloat16", "buckets": True}
        deployment = make_deployment(DOUBLING, cuda=section, batchSize=4)
        (deployment.directory / "in.json").write_text("[1.5]")
        (deployment.directory / "out.json").write_text("[3.0]")
        example = Example(input="in.json", output="out.json", content_type="application/json")
        seal = Seal(name="m", version="1.0", runtime="custom", members={}, examples=(example,))

        async def test(service: Service) -> None:
            (description,) = service.describe("m")
            (worker,) = description["workers"]
            assert worker["cuda"] == {"precision": "bfloat16", "buckets": [1, 2, 4]}
            assert (await submit(service, "[2.5]")).status == 200

        run_service(test, replace(deployment, seal=seal))

    def test_a_worker_without_the_section_is_described_as_torchserve_does(
        self, make_deployment: Maker, run_service: Runner
    ) -> None:
        async def test(service: Service) -> None:
            (description,) = service.describe("m")
            assert "cuda" not in description["workers"][0]

        run_service(test, make_deployment())
