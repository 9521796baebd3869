"""Answers in pieces, in rounds and beside each other, from real workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hatch_mar.serve import Deployment, Part, PieceQueue, Request, Response, Service

Maker = Callable[..., Deployment]
Runner = Callable[..., None]
Appears = Callable[[Path], Awaitable[None]]

STREAMING = """
    import os, time
    from pathlib import Path
    from ts.handler_utils.utils import send_intermediate_predict_response as send

    def handle(data, context):
        if data is None:
            return
        orders = [bytes(row["body"]).decode().split(",") for row in data]
        for step in range(max(map(len, orders)) - 1):
            pieces = [order[step] if step < len(order) - 1 else "" for order in orders]
            if "fail" in pieces:
                raise ValueError("no")
            if "die" in pieces:
                os._exit(3)
            if "wait" in pieces:
                while not Path("go").exists():
                    time.sleep(0.002)
            if "large" in pieces:
                pieces = ["x" * 300_000]
                Path("sent").write_text(str(step))
            if "refuse" in pieces:
                send([""], context.request_ids, "refused", 422, context)
                continue
            send(pieces, context.request_ids, "", 200, context)
        return [order[-1] for order in orders]
"""
ROUNDS = """
    from pathlib import Path
    LEFT = {}

    def handle(data, context):
        if data is None:
            return
        ids = context.request_ids
        for index, row in enumerate(data):
            if row:
                LEFT[ids[index]] = int(row["body"])
        with open("rounds", "a") as log:
            print(len(data), file=log)
        if LEFT[ids[0]] > 1000:
            Path("endless").touch()
        context.stopping_criteria = [(lambda text: text == "0") for _ in data]
        for ident in ids.values():
            LEFT[ident] -= 1
        return [str(LEFT[ids[index]]) for index in range(len(data))]
"""
OVERLAPPED = """
    import asyncio
    from pathlib import Path

    class Handler:
        async def initialize(self, context):
            self.event = asyncio.Event()

        async def handle(self, data, context):
            order = bytes(data[0]["body"]).decode()
            try:
                if order == "wait":
                    Path("waits").touch()
                    await self.event.wait()
                if order == "go":
                    self.event.set()
                if order == "exit":
                    raise SystemExit(3)
            except asyncio.CancelledError:
                Path("cancelled").touch()
                raise
            context.metrics.add_counter("Orders", 1)
            return [order]
"""


def ask(body: str, ident: str = "id") -> Request:
    return Request(ident, (), [Part("body", "", body.encode())])


async def texts(pieces: PieceQueue) -> list[str]:
    return [bytes(piece.body).decode() async for piece in pieces]


async def appear(path: Path) -> None:
    async with asyncio.timeout(30):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
            await asyncio.sleep(0.002)


def test_pieces_come_before_the_last_one(make_deployment: Maker, run_service: Runner) -> None:
    deployment = make_deployment(STREAMING)

    async def test(service: Service) -> None:
        stream = service.stream("m", None, ask("a,wait,b"))
        first = await anext(stream)
        assert bytes(first.body) == b"a"
        assert first.announces_more
        (deployment.directory / "go").touch()
        assert [bytes(piece.body) async for piece in stream] == [b"wait", b"b"]

    run_service(test, deployment)


def test_everybody_in_a_batch_gets_his_own(make_deployment: Maker, run_service: Runner) -> None:
    async def test(service: Service) -> None:
        queues = [PieceQueue(service, "m", None, ask(f"{i},{i}0,{i}1", str(i))) for i in range(4)]
        assert await asyncio.gather(*map(texts, queues)) == [
            [f"{i}", f"{i}0", f"{i}1"] for i in range(4)
        ]

    run_service(test, make_deployment(STREAMING, batchSize=4, maxBatchDelay=1000))


def test_who_wants_no_pieces_gets_all_at_once(make_deployment: Maker, run_service: Runner) -> None:
    async def test(service: Service) -> None:
        response = await service.predict("m", None, ask("a,b,c"))
        assert bytes(response.body) == b"abc"
        assert response.headers == ()

    run_service(test, make_deployment(STREAMING))


@pytest.mark.parametrize(
    ("order", "status"), [("a,fail,b", 503), ("a,die,b", 500), ("a,refuse,b,c", 422)]
)
def test_a_stream_that_fails_ends_with_one_error(
    make_deployment: Maker, run_service: Runner, order: str, status: int
) -> None:
    async def test(service: Service) -> None:
        first, last = [piece async for piece in service.stream("m", None, ask(order))]
        assert (bytes(first.body), first.error) == (b"a", False)
        assert (last.error, last.status) == (True, status)
        assert bytes((await service.predict("m", None, ask("next"))).body) == b"next"

    run_service(test, make_deployment(STREAMING))


def test_a_batch_that_has_streamed_is_not_run_again(
    make_deployment: Maker, run_service: Runner
) -> None:
    async def test(service: Service) -> None:
        queues = [PieceQueue(service, "m", None, ask("a,fail,b", str(i))) for i in range(2)]
        assert [len(pieces) for pieces in await asyncio.gather(*map(texts, queues))] == [2, 2]

    run_service(test, make_deployment(STREAMING, batchSize=2, maxBatchDelay=1000, isolate=True))


def test_who_is_gone_is_fed_no_more(make_deployment: Maker, run_service: Runner) -> None:
    deployment = make_deployment(STREAMING)

    async def test(service: Service) -> None:
        heard: list[Response] = []
        job = service.submit("m", None, ask("a,wait,b"), heard.append, heard.append)
        while not heard:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        service.cancel(job)
        (deployment.directory / "go").touch()
        await service.predict("m", None, ask("next"))
        assert len(heard) == 1

    run_service(test, deployment)


def test_a_worker_waits_for_who_does_not_keep_up(
    make_deployment: Maker, run_service: Runner
) -> None:
    deployment = make_deployment(STREAMING, responseTimeout=3)
    count = 40

    async def test(service: Service) -> None:
        pieces = PieceQueue(service, "m", None, ask(",".join(["large"] * count + ["end"])))
        await anext(pieces)
        # Longer than responseTimeout: it is not the worker that is slow.
        await asyncio.sleep(3.5)
        sent = int((deployment.directory / "sent").read_text(encoding="utf-8"))
        assert sent < count - 1
        assert len(await texts(pieces)) == count

    run_service(test, deployment)


def test_others_join_while_rounds_are_run(make_deployment: Maker, run_service: Runner) -> None:
    deployment = make_deployment(ROUNDS, batchSize=2, continuousBatching=True)

    async def test(service: Service) -> None:
        endless = PieceQueue(service, "m", None, ask("100000000", "endless"))
        await appear(deployment.directory / "endless")
        assert await texts(PieceQueue(service, "m", None, ask("3", "short"))) == ["2", "1", "0"]
        endless.close()
        both = [PieceQueue(service, "m", None, ask("2", str(i))) for i in range(2)]
        assert await asyncio.gather(*map(texts, both)) == [["1", "0"], ["1", "0"]]

    run_service(test, deployment)


def test_batches_overlap(make_deployment: Maker, run_service: Runner) -> None:
    deployment = make_deployment(OVERLAPPED, asyncCommunication=True)

    async def test(service: Service) -> None:
        waiting = asyncio.ensure_future(service.predict("m", None, ask("wait", "1")))
        await appear(deployment.directory / "waits")
        assert bytes((await service.predict("m", None, ask("go", "2"))).body) == b"go"
        assert bytes((await waiting).body) == b"wait"
        while "Orders" not in service.metrics.expose([]):  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    run_service(test, deployment)


def test_a_batch_that_nobody_waits_for_is_cancelled(
    make_deployment: Maker, run_service: Runner
) -> None:
    deployment = make_deployment(OVERLAPPED, asyncCommunication=True)

    async def test(service: Service) -> None:
        waiting = asyncio.ensure_future(service.predict("m", None, ask("wait", "1")))
        await appear(deployment.directory / "waits")
        waiting.cancel()
        await appear(deployment.directory / "cancelled")
        assert bytes((await service.predict("m", None, ask("on", "2"))).body) == b"on"

    run_service(test, deployment)


def test_an_overlapping_handler_that_exits_takes_its_worker(
    make_deployment: Maker, run_service: Runner
) -> None:
    async def test(service: Service) -> None:
        assert (await service.predict("m", None, ask("exit", "1"))).status == 500
        assert bytes((await service.predict("m", None, ask("on", "2"))).body) == b"on"

    run_service(test, make_deployment(OVERLAPPED, asyncCommunication=True))


def test_a_plain_handler_may_ask_to_overlap(make_deployment: Maker, run_service: Runner) -> None:
    async def test(service: Service) -> None:
        assert bytes((await service.predict("m", None, ask("on"))).body) == b"on"

    run_service(test, make_deployment(asyncCommunication=True))


def test_tickets(make_deployment: Maker, run_service: Runner) -> None:
    deployment = make_deployment(STREAMING, useJobTicket=True)

    async def test(service: Service) -> None:
        pieces = PieceQueue(service, "m", None, ask("a,wait,b"))
        await anext(pieces)
        with pytest.raises(Exception, match="has no worker to serve"):
            PieceQueue(service, "m", None, ask("c"))
        (deployment.directory / "go").touch()
        assert await texts(pieces) == ["wait", "b"]

    run_service(test, deployment)


def test_sequences_are_kept_in_order(make_deployment: Maker, run_service: Runner) -> None:
    source = """
        SEEN = {}
        def handle(data, context):
            if data is None:
                return
            ids = [context.get_sequence_id(i) for i in range(len(data))]
            assert len(set(ids)) == len(ids)
            for i, ident in enumerate(ids):
                SEEN.setdefault(ident, []).append(int(data[i]["body"]))
                if len(SEEN[ident]) == 5:
                    context.set_response_header(i, "ts_request_sequence_end", ident)
            return [list(SEEN[ident]) for ident in ids]
    """
    config: dict[str, Any] = {
        "sequenceBatching": True,
        "sequenceMaxIdleMSec": 60_000,
        "maxNumSequence": 2,
        "maxSequenceJobQueueSize": 5,
        "batchSize": 2,
    }

    async def test(service: Service) -> None:
        for _ in range(2):  # the second time there is room again: both were ended
            asked = []
            for number in range(5):
                for name in ("a", "b"):
                    request = ask(str(number), f"{name}{number}")
                    request.headers = (("ts_request_sequence_id", f"{name}{_}"),)
                    asked.append(service.predict("m", None, request))
            answers = [bytes(one.body).decode().split() for one in await asyncio.gather(*asked)]
            assert answers[-1] == ["[", "0,", "1,", "2,", "3,", "4", "]"]

    run_service(test, make_deployment(source, **config))
