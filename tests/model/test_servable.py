"""A loaded model: what its clients are told, whatever the handler does."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.model.batch_cap import PATIENCE
from hatch_mar.model.protocol import DeviceReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.models import Ask, Load, MakeModel

HANDLER = """
from ts.utils.util import PredictionException

calls = []

def handle(data, context):
    if data is None:
        return None
    calls.append([row["body"] for row in data])
    for row in data:
        if row["body"] == "boom":
            raise RuntimeError("boom")
        if row["body"] == "cuda":
            raise RuntimeError("CUDA out of memory")
        if row["body"] == "memory":
            raise MemoryError
        if row["body"] == "panic":
            raise type("PanicException", (BaseException,), {})("a library in Rust")
        if row["body"] == "mute":
            raise type("Mute", (Exception,), {"__str__": lambda self: 1 / 0})
        if row["body"] == "exit":
            raise SystemExit(3)
        if isinstance(row["body"], list):
            raise PredictionException(*row["body"])
    return [row["body"].upper() for row in data]
"""
FAILED = (503, "Prediction failed", True)


@pytest.fixture
def predict(make_model: MakeModel, load_model: Load, ask: Ask) -> Callable[..., Any]:
    """Answer bodies with HANDLER; return status, text and whether it is an error."""

    def answer(*bodies: str, isolate: bool | None = None) -> list[tuple[int, str, bool]]:
        model = load_model(make_model({"handler.py": HANDLER}, isolate=isolate))
        requests = [
            ask(body.encode(), "application/json" if body.startswith("[") else "text/plain")
            for body in bodies
        ]
        return [
            (response.status, bytes(response.body).decode(), response.error)
            for response in model.predict(requests)
        ]

    return answer


def test_a_batch_is_answered_in_order(predict: Any) -> None:
    assert predict("a", "b") == [(200, "A", False), (200, "B", False)]


def test_an_exception_fails_the_batch(predict: Any) -> None:
    assert predict("a", "boom") == [FAILED, FAILED]


def test_a_panic_of_a_library_fails_the_batch_and_not_the_worker(predict: Any) -> None:
    assert predict("a", "panic") == [FAILED, FAILED]


def test_an_exception_that_cannot_be_said_fails_the_batch(predict: Any) -> None:
    assert predict("a", "mute") == [FAILED, FAILED]


def test_one_bad_item_fails_alone_if_asked_for(predict: Any) -> None:
    answers = predict("a", "b", "boom", "c", "d", isolate=True)
    assert [status for status, _, _ in answers] == [200, 200, 503, 200, 200]
    assert [text for _, text, _ in answers] == ["A", "B", "Prediction failed", "C", "D"]


@pytest.mark.parametrize("body", ["cuda", "memory"])
def test_a_lack_of_memory_is_507(predict: Any, body: str) -> None:
    assert predict(body) == [(507, "Out of resources", True)]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        ('["not you", 422]', (422, "not you", True)),
        ('["no code"]', (500, "no code", True)),
        ('["too big", 413]', (507, "too big", True)),
        ('["fine", 200]', (200, "error", False)),
        ('["nonsense", 7]', (500, "nonsense", True)),
        ('["nonsense", "x"]', (500, "nonsense", True)),
    ],
)
def test_a_handler_can_refuse(predict: Any, raised: str, expected: tuple[int, str, bool]) -> None:
    assert predict(raised) == [expected]


def test_a_handler_that_exits_takes_the_worker_with_it(predict: Any) -> None:
    with pytest.raises(SystemExit):
        predict("a", "exit", isolate=True)


def test_a_traceback_is_logged_once_for_each_bad_item(
    predict: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "hatch_mar.model"):
        predict("a", "boom", "b", "c", isolate=True)
    (record,) = caplog.records
    text = record.getMessage()
    assert text.count("Traceback") == 1
    assert "handler.py" in text
    assert "During handling" not in text
    assert "hatch_mar/model" not in text


def test_a_refusal_is_no_error_of_the_server(
    predict: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hatch_mar.model"):
        predict('["not you", 422]')
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_rows_of_a_second_attempt_are_untouched(
    make_model: MakeModel, load_model: Load, ask: Ask
) -> None:
    handler = """
def handle(data, context):
    if data is None:
        return None
    values = [row.pop("body") for row in data]
    if len(values) > 1:
        raise RuntimeError("one at a time")
    return values
"""
    model = load_model(make_model({"handler.py": handler}, isolate=True))
    answers = model.predict([ask(b"1"), ask(b"2"), ask(b"3")])
    assert [answer.body for answer in answers] == [b"1", b"2", b"3"]


def test_a_second_attempt_knows_its_own_requests(
    make_model: MakeModel, load_model: Load, ask: Ask
) -> None:
    handler = """
def handle(data, context):
    if data is None:
        return None
    if len(data) > 1:
        context.set_all_response_status(299)
        raise RuntimeError("one at a time")
    return [[context.get_request_id(i), len(context.request_ids)] for i in range(len(data))]
"""
    model = load_model(make_model({"handler.py": handler}, isolate=True))
    answers = model.predict([ask(id="one"), ask(id="two")])
    assert [answer.status for answer in answers] == [200, 200]
    assert [b"one" in answer.body for answer in answers] == [True, False]


def test_measurements_can_be_taken(make_model: MakeModel, load_model: Load, ask: Ask) -> None:
    handler = """
def handle(data, context):
    if data is None:
        return None
    context.metrics.add_counter("Rows", len(data))
    return data
"""
    model = load_model(make_model({"handler.py": handler}))
    model.predict([ask(b"1", id="a"), ask(b"2", id="b")])
    (measurement,) = model.drain_metrics()
    assert (measurement.name, measurement.value, measurement.request_id) == ("Rows", 2, "a,b")
    assert model.drain_metrics() == []


CRAMPED = """
import json
from pathlib import Path

def handle(data, context):
    if data is None:
        return None
    sizes = [row["body"] for row in data]
    with open("sizes", "a") as log:
        print(json.dumps(sizes), file=log)
    if "assert" in sizes:
        raise RuntimeError("CUDA error: device-side assert triggered")
    if sum(sizes) > 5:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
    return sizes
"""
"""A handler on a device that has room for 5."""


class TestMemory:
    def load(self, make_model: MakeModel, load_model: Load, **options: Any) -> Any:
        return load_model(make_model({"handler.py": CRAMPED}, **options))

    def answer(self, model: Any, ask: Ask, *sizes: Any) -> list[int]:
        requests = [ask(json.dumps(size).encode()) for size in sizes]
        return [response.status for response in model.predict(requests)]

    def test_a_batch_without_room_is_run_in_smaller_ones(
        self, make_model: MakeModel, load_model: Load, ask: Ask
    ) -> None:
        model = self.load(make_model, load_model, batch_size=16, isolate=True)
        assert self.answer(model, ask, *[1] * 16) == [200] * 16
        assert model.batch_cap == 4
        assert model.report_device() == DeviceReport(batch_cap=4, out_of_memory=3)
        assert model.report_device() is None

    def test_where_that_is_unsafe_the_batch_fails_and_the_next_is_smaller(
        self, make_model: MakeModel, load_model: Load, ask: Ask
    ) -> None:
        model = self.load(make_model, load_model, batch_size=16, isolate=False)
        assert self.answer(model, ask, *[1] * 8) == [507] * 8
        assert model.batch_cap == 4

    def test_one_that_finds_no_room_alone_does_not_make_batches_smaller(
        self, make_model: MakeModel, load_model: Load, ask: Ask
    ) -> None:
        model = self.load(make_model, load_model, batch_size=4, isolate=True)
        assert self.answer(model, ask, 1, 1, 9, 1) == [200, 200, 507, 200]
        assert model.batch_cap == 4

    def test_what_fits_again_and_again_lets_batches_grow(
        self, make_model: MakeModel, load_model: Load, ask: Ask
    ) -> None:
        model = self.load(make_model, load_model, batch_size=8, isolate=True)
        self.answer(model, ask, *[1] * 8)
        for _ in range(PATIENCE):
            self.answer(model, ask, *[1] * 4)
        assert model.batch_cap == 5

    def test_a_poisoned_context_ends_the_process_and_nothing_is_run_again(
        self, make_model: MakeModel, load_model: Load, ask: Ask
    ) -> None:
        model = self.load(make_model, load_model, batch_size=4, isolate=True, gpu_id=0)
        assert self.answer(model, ask, 1, "assert", 1) == [507, 507, 507]
        assert model.device_lost
        assert model.device_fault == (
            "context: RuntimeError: CUDA error: device-side assert triggered"
        )
        assert Path("sizes").read_text(encoding="utf-8").count("\n") == 1

    def test_without_a_gpu_no_device_is_lost(
        self, make_model: MakeModel, load_model: Load, ask: Ask
    ) -> None:
        model = self.load(make_model, load_model, isolate=False)
        assert self.answer(model, ask, "assert") == [507]
        assert not model.device_lost
        assert model.report_device() == DeviceReport(batch_cap=1)


def test_a_coroutine_is_run_to_its_end(make_model: MakeModel, load_model: Load, ask: Ask) -> None:
    handler = """
import asyncio

async def handle(data, context):
    if data is None:
        return None
    await asyncio.sleep(0)
    return [row["body"] for row in data]
"""
    model = load_model(make_model({"handler.py": handler}))
    assert model.predict([ask(b"1")])[0].body == b"1"


def test_coroutines_of_a_class_share_a_loop(
    make_model: MakeModel, load_model: Load, ask: Ask
) -> None:
    handler = """
import asyncio

class Handler:
    async def initialize(self, context):
        self.loop = asyncio.get_running_loop()

    async def handle(self, data, context):
        return [self.loop is asyncio.get_running_loop() for _ in data]
"""
    model = load_model(make_model({"handler.py": handler}))
    assert model.predict([ask(b"1")])[0].body == b"true"
