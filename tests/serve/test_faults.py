"""Workers that die, hang or never start: nobody is left waiting, and health says why."""

from __future__ import annotations

import asyncio
import os
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
    ServiceUnavailableError,
    WorkerStartError,
)
from hatch_mar.serve import Deployment, Response, Service

Maker = Callable[..., Deployment]
Runner = Callable[..., None]
Submit = Callable[..., "asyncio.Future[Response]"]


def summary(reply: Response) -> tuple[int, bytes, bool, str]:
    return reply.status, bytes(reply.body), reply.error, reply.error_type


DIED = (500, b"Worker died.", True, "InternalServerException")


class TestDeath:
    @pytest.mark.parametrize(
        ("order", "reason"),
        [
            ("exit 3", "exit code 3"),
            ("vanish 4", "exit code 4"),
            (f"signal {signal.SIGKILL:d}", "killed by signal SIGKILL"),
            (f"signal {signal.SIGSEGV:d}", "killed by signal SIGSEGV"),
        ],
    )
    def test_the_one_that_was_running_is_told_and_the_others_are_answered(
        self, obedient: Maker, run_service: Runner, submit: Submit, order: str, reason: str
    ) -> None:
        async def test(service: Service) -> None:
            killer, *others = (submit(service, body) for body in (order, "a", "b", "c"))
            assert summary(await killer) == DIED
            assert [bytes((await other).body) for other in others] == [b"a", b"b", b"c"]
            health = service.health().models["m"]["1.0"]
            assert health.ready
            (worker,) = health.workers
            assert (worker.deaths, worker.reason) == (1, reason)

        run_service(test, obedient())

    def test_of_a_batch_all_are_told(
        self, obedient: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            replies = [submit(service, body) for body in ("a", "vanish 1", "b", "c")]
            assert [(await reply).status for reply in replies] == [500, 500, 500, 200]

        run_service(test, obedient(batchSize=3))

    def test_memory_that_ran_out_is_told_apart(
        self, obedient: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            reply = await submit(service, "vanish 137")
            assert summary(reply) == (507, b"Worker died.", True, "InternalServerException")
            (worker,) = service.health().models["m"]["1.0"].workers
            assert worker.reason == "killed by the kernel: out of memory"

        run_service(test, obedient())

    def test_answers_given_before_are_not_lost(
        self, obedient: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            replies = [submit(service, body) for body in ("a", "b", "exit 1")]
            assert [(await reply).status for reply in replies] == [200, 200, 500]

        run_service(test, obedient())

    def test_another_worker_takes_over(
        self, obedient: Maker, run_service: Runner, submit: Submit
    ) -> None:
        deployment = obedient()

        async def test(service: Service) -> None:
            pids = {bytes((await submit(service, "pid")).body) for _ in range(4)}
            assert len(pids) == 2
            for pid in pids:
                os.kill(int(pid), signal.SIGKILL)
            replies = [submit(service, "pid") for _ in range(8)]
            new = {bytes((await reply).body) for reply in replies}
            assert new.isdisjoint(pids - {b"Worker died."})

        run_service(test, deployment, workers=2)

    def test_a_silent_worker_is_replaced(
        self, obedient: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            silent, waiting = submit(service, "sleep 600"), submit(service, "a")
            assert summary(await silent) == DIED
            assert (await waiting).status == 200
            (worker,) = service.health().models["m"]["1.0"].workers
            assert worker.reason == "no answer within responseTimeout=1 seconds"

        run_service(test, obedient(responseTimeout=1))

    def test_a_worker_that_hangs_up_is_replaced(
        self, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        source = """
            import os, socket, stat, time

            def handle(data, context):
                if data and bytes(data[0]["body"]) == b"hang up":
                    for fd in range(3, 20):
                        try:
                            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                                os.close(fd)
                        except OSError:
                            pass
                    time.sleep(600)
                return data and [row["body"] for row in data]
        """

        async def test(service: Service) -> None:
            assert summary(await submit(service, "hang up")) == DIED
            assert (await submit(service, "a")).status == 200

        run_service(test, make_deployment(source))

    def test_one_that_talks_nonsense_is_replaced(
        self, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        source = """
            import os, stat, time

            def handle(data, context):
                if data and bytes(data[0]["body"]) == b"nonsense":
                    (fd,) = [fd for fd in range(3, 20) if is_socket(fd)]
                    os.write(fd, b"This is no frame at all.")
                    time.sleep(600)
                return data and [row["body"] for row in data]

            def is_socket(fd):
                try:
                    return stat.S_ISSOCK(os.fstat(fd).st_mode)
                except OSError:
                    return False
        """

        async def test(service: Service) -> None:
            assert summary(await submit(service, "nonsense")) == DIED
            assert (await submit(service, "a")).status == 200

        run_service(test, make_deployment(source))


RELUCTANT = """
    from pathlib import Path
    import os

    def handle(data, context):
        if data is None:
            mark = Path("loaded-before")
            if mark.exists():
                raise RuntimeError("once is enough")
            mark.touch()
        else:
            os._exit(1)
"""
"""A handler that loads once, dies of its first request, and never loads again."""


class TestRestart:
    def test_it_is_given_up_after_a_while(
        self, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        async def test(service: Service) -> None:
            died, waiting = submit(service, "a"), submit(service, "b")
            assert (await died).status == 500
            assert (await waiting).error_type == "ServiceUnavailableException"
            health = service.health()
            assert not health.ready
            model = health.models["m"]["1.0"]
            assert model.state == "failed"
            assert "RuntimeError: once is enough" in model.reason
            with pytest.raises(ServiceUnavailableError):
                submit(service, "c")

        run_service(test, make_deployment(RELUCTANT, maxRetryTimeoutInSec=0))

    def test_requests_wait_for_it(
        self, make_deployment: Maker, run_service: Runner, submit: Submit, appears: Any
    ) -> None:
        source = """
            import os, time
            from pathlib import Path

            def handle(data, context):
                if data is None and Path("loaded-before").exists():
                    Path("loading").touch()
                    while not Path("go").exists():
                        time.sleep(0.002)
                Path("loaded-before").touch()
                if data and bytes(data[0]["body"]) == b"die":
                    os._exit(1)
                return data and [row["body"] for row in data]
        """
        deployment = make_deployment(source)

        async def test(service: Service) -> None:
            assert (await submit(service, "die")).status == 500
            await appears(deployment.directory / "loading")
            assert service.health().models["m"]["1.0"].state == "restarting"
            waiting = submit(service, "a")
            (deployment.directory / "go").touch()
            assert bytes((await waiting).body) == b"a"

        run_service(test, deployment)


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
        assert str(error) == "m 1.0: exit code 5"

    def test_a_handler_that_exits(self, make_deployment: Maker, run_service: Runner) -> None:
        error = self.refused(run_service, make_deployment("raise SystemExit(0)"))
        assert "SystemExit" in str(error)

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


def wait_until_gone(pid: int) -> None:
    """Wait for a process that is not our child to be gone, or a zombie of somebody else's."""
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
def test_workers_die_with_their_door(door: Any) -> None:
    process, directory = door("until never")
    with process:
        pid = int(process.stdout.readline())
        wait_for(directory / "never.waiting")
        process.kill()
        wait_until_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_group_are_the_doors_business(
    door: Any, number: signal.Signals
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
