"""Workers that die, hang or never start: nobody is left waiting, and health says why."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from hatch_mar.errors import (
    ServiceUnavailableError,
)
from hatch_mar.serve import Deployment, Part, Request, Response, Service, process, workforce
from hatch_mar.serve.backoff import backoff
from hatch_mar.serve.process import Exit
from hatch_mar.serve.slot import TRANSITIONS, State

Maker = Callable[..., Deployment]
Runner = Callable[..., None]
Submit = Callable[..., "asyncio.Future[Response]"]


def summary(reply: Response) -> tuple[int, bytes, bool, str]:
    return reply.status, bytes(reply.body), reply.error, reply.error_type


DIED = (500, b"Worker died.", True, "InternalServerException")


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly a process ends, nobody kills it: the reason is its own."""
    monkeypatch.setattr(process, "_HANG_UP_SECONDS", 30)


class TestDeath:
    @pytest.mark.usefixtures("patience")
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
        self,
        obedient: Maker,
        run_service: Runner,
        submit: Submit,
        order: str,
        reason: str,
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
            assert worker.reason == "no answer within responseTimeout=3 seconds"

        run_service(test, obedient(responseTimeout=3))

    def test_a_worker_that_hangs_up_is_replaced(
        self, make_deployment: Maker, run_service: Runner, submit: Submit
    ) -> None:
        source = """
            import os, socket, stat, time

            def handle(data, context):
                if data and bytes(data[0]["body"]) == b"hang up":
                    for fd in range(3, 1024):
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
                    (fd,) = [fd for fd in range(3, 1024) if is_socket(fd)]
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

    def test_what_it_started_ends_with_it(
        self,
        make_deployment: Maker,
        run_service: Runner,
        submit: Submit,
        wait_until_gone: Callable[[int], None],
    ) -> None:
        source = """
            import os, subprocess, sys

            def handle(data, context):
                if data and bytes(data[0]["body"]) == b"die":
                    os._exit(1)
                if data:
                    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                    return [str(child.pid)]
        """

        async def test(service: Service) -> None:
            pid = int(bytes((await submit(service, "start")).body))
            assert (await submit(service, "die")).status == 500
            wait_until_gone(pid)

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


def test_a_forgotten_thread_does_not_keep_a_worker(
    make_deployment: Maker,
    run_service: Runner,
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workforce, "STOP_SECONDS", 3600)
    source = """
        import threading, time

        threading.Thread(target=time.sleep, args=[3600]).start()

        def handle(data, context):
            return data and [row["body"] for row in data]
    """

    async def test(service: Service) -> None:
        assert (await submit(service, "a")).status == 200
        async with asyncio.timeout(60):
            await service.close(timeout=3600)

    run_service(test, make_deployment(source))


def test_closing_waits_for_nobody_who_has_gone(
    obedient: Maker, run_service: Runner, submit: Submit, appears: Any
) -> None:
    deployment = obedient()

    async def test(service: Service) -> None:
        abandoned = submit(service, "until never")
        await appears(deployment.directory / "never.waiting")
        service.cancel(abandoned.job)  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            await service.close(timeout=3600)

    run_service(test, deployment)


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


def test_the_pauses_before_new_tries_are_torchserves() -> None:
    assert list(islice(backoff(), 9)) == [0, 1, 1, 2, 3, 5, 8, 13, 21]


def test_every_state_can_be_left_for_dead_and_that_for_none() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {state for state, after in TRANSITIONS.items() if State.DEAD not in after} == {
        State.DEAD
    }
    assert not TRANSITIONS[State.DEAD]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (Exit(3, out_of_memory=False), "exit code 3"),
        (Exit(-11, out_of_memory=False), "killed by signal SIGSEGV"),
        (Exit(-99, out_of_memory=False), "killed by signal 99"),
        (Exit(-9, out_of_memory=True), "killed by the kernel: out of memory"),
    ],
)
def test_ends_in_words(end: Exit, words: str) -> None:
    assert str(end) == words


class Longer(bytes):
    """A body that says that it is longer than it is."""

    __slots__ = ()

    def __len__(self) -> int:
        """Lie."""
        return super().__len__() + 100


def test_a_request_that_no_worker_can_read_does_not_end_them_for_ever(
    obedient: Maker, run_service: Runner, submit: Submit
) -> None:
    deployment = obedient()

    async def test(service: Service) -> None:
        poison = Request("p", (), [Part("body", "", Longer(b"pid"))])
        reply = await asyncio.wait_for(service.predict("m", None, poison), 60)
        assert summary(reply) == DIED
        assert (await submit(service, "a")).status == 200
        assert service.health().models["m"]["1.0"].workers[0].deaths == 3

    run_service(test, deployment)
