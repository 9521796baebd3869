"""Micro-batching: a batch in pieces, through three steps that overlap."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.model.context import Context
from hatch_mar.model.micro_batching import MicroBatching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.models import Ask, Load, MakeModel


class Handler:
    """Adds one letter in each step."""

    def __init__(self) -> None:
        self.context: Any = None
        self.pieces: list[list[str]] = []

    def preprocess(self, data: list[str]) -> list[str]:
        self.pieces.append(data)
        return [f"{one}p" for one in data]

    def inference(self, data: list[str]) -> list[str]:
        if "failp" in data:
            raise ValueError("no good")
        return [f"{one}i" for one in data]

    def postprocess(self, data: list[str]) -> list[str]:
        return [f"{one}o" for one in data]

    def _is_describe(self) -> bool:
        return False

    def _is_explain(self) -> bool:
        return False


@pytest.fixture
def batching() -> Iterator[MicroBatching]:
    made = MicroBatching(Handler(), micro_batch_size=2)
    yield made
    made.shutdown()


def test_answers_are_in_order(batching: MicroBatching) -> None:
    batching.parallelism = {"preprocess": 3, "inference": 2, "postprocess": 2}
    assert batching.handle(list("abcdefg")) == [f"{one}pio" for one in "abcdefg"]
    assert sorted(map(len, batching.handler.pieces)) == [1, 2, 2, 2]


def test_a_step_that_raises_fails_the_batch_and_no_other(batching: MicroBatching) -> None:
    with pytest.raises(ValueError, match="no good"):
        batching.handle(["a", "b", "fail"])
    assert batching.handle(["a"]) == ["apio"]


def test_pieces_are_in_different_steps_at_the_same_time(batching: MicroBatching) -> None:
    """The first is in `inference` while the second is in `preprocess`: else both wait for ever."""
    meeting = threading.Barrier(2, timeout=20)
    handler = batching.handler
    preprocess, inference = handler.preprocess, handler.inference

    def second(data: list[str]) -> Any:
        if data == ["b"]:
            meeting.wait()
        return preprocess(data)

    def first(data: list[str]) -> Any:
        if data == ["ap"]:
            meeting.wait()
        return inference(data)

    handler.preprocess, handler.inference = second, first
    batching.micro_batch_size = 1
    assert batching.handle(["a", "b"]) == ["apio", "bpio"]


def test_a_step_knows_its_piece(batching: MicroBatching) -> None:
    batching.handler.postprocess = lambda data: [batching.get_micro_batch_idx()] * len(data)
    assert batching.handle(list("abc")) == [0, 0, 1]
    assert batching.get_micro_batch_idx() is None


def test_parallelism_is_per_step(batching: MicroBatching) -> None:
    batching.parallelism = {"inference": 2}
    batching.parallelism = {"preprocess": 4}
    assert batching.parallelism == {"inference": 2, "preprocess": 4}


@pytest.mark.parametrize("parallelism", [{"train": 1}, {"inference": 0}, {"inference": "two"}])
def test_what_is_no_parallelism_is_refused(parallelism: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"micro_batching\.parallelism\."):
        MicroBatching(Handler(), parallelism=parallelism)


def test_it_is_called_as_handle_is(batching: MicroBatching) -> None:
    context = Context("m", ".", None, 1, None)
    assert batching(["a"], context) == ["apio"]
    assert [one.name for one in context.metrics.drain()] == ["HandlerTime"]
    assert batching.handler.context is context


HANDLER = """
import torch
from ts.handler_utils.micro_batching import MicroBatching
from ts.torch_handler.base_handler import BaseHandler

class Micro(BaseHandler):
    def __init__(self):
        super().__init__()
        self.handle = MicroBatching(self)

    def initialize(self, context):
        config = context.model_yaml_config["micro_batching"]
        self.handle.micro_batch_size = config["micro_batch_size"]

    def preprocess(self, data):
        return [row["body"] for row in data]

    def inference(self, data):
        return [2 * one for one in data]

    def postprocess(self, data):
        return [[one, len(data)] for one in data]

    def get_insights(self, tensor_data, raw_data, target):
        return ["because"]

    def describe_handle(self):
        return "a model"
"""


def test_a_handler_puts_it_in_the_place_of_its_handle(
    make_model: MakeModel, load_model: Load, ask: Ask
) -> None:
    config = {"micro_batching": {"micro_batch_size": 2}}
    served = load_model(make_model({"handler.py": HANDLER}, config=config))
    requests = [ask(str(number).encode(), id=f"r{number}") for number in range(3)]
    answers = [json.loads(bytes(one.body)) for one in served.predict(requests)]
    assert answers == [[0, 2], [2, 2], [4, 1]]
    asked = [ask(b"1", explain=True), ask(b"1", describe=True), ask(b"4")]
    assert [bytes(one.body) for one in served.predict(asked)][:2] == [b"because", b"a model"]
