"""Batches overlap while the model is replayed: no answer is another batch's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from hatch_mar.model.cuda.forward import Forward  # noqa: E402 - it needs torch
from hatch_mar.model.cuda.pipeline import open_pipeline  # noqa: E402
from hatch_mar.model.cuda.section import CudaOptions  # noqa: E402
from tests.support.door import Door  # noqa: E402
from tests.support.fake_cuda import FakeLayer  # noqa: E402

if TYPE_CHECKING:
    from tests.support.models import Ask, Load, MakeModel

FACTORY = """
import torch
from hatch_mar import handler_factory

class Net(torch.nn.Module):
    def forward(self, x):
        return {"twice": x * 2, "sum": x.sum(1)}

handler = handler_factory(Net, lambda sample: torch.tensor(sample, dtype=torch.float32))
"""


@pytest.fixture
def model(make_model: MakeModel, load_model: Load) -> Any:
    return load_model(make_model({"handler.py": FACTORY}, handler="handler:handler", batch_size=4))


def accelerate(model: Any, layer: FakeLayer, buckets: Any) -> Any:
    """Have the handler of `model` run its network as graphs on `layer`; return its stages."""
    handler, options = model._handler, CudaOptions(graphs=True, buckets=buckets)
    handler._accelerated = Forward(
        handler.model, device=torch.device("cpu"), options=options, batch_size=4, layer=layer
    )
    stages = open_pipeline(model, handler, layer)
    assert stages is not None
    return stages


def body(number: int) -> bytes:
    return json.dumps([number, number + 1, 0.5]).encode()


def read(response: Any) -> Any:
    return json.loads(bytes(response.body))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=14),
    st.sampled_from([True, (4,), (1, 3)]),
)
def test_answers_are_those_of_the_model(
    model: Any, ask: Ask, numbers: list[int], buckets: Any
) -> None:
    model._handler._accelerated = None
    expected = [read(model.predict([ask(body(number))])[0]) for number in numbers]
    layer = FakeLayer()
    with Door(model, accelerate(model, layer, buckets), batch_size=4) as door:
        door.send(*map(body, numbers))
        assert [read(each) for each in door.read(len(numbers))] == expected
    assert layer.list_asked("replay")
    assert model._handler._accelerated.describe()["withoutGraph"] == {}


def test_a_batch_is_replayed_before_the_one_in_front_of_it_is_copied_back(
    model: Any, ask: Ask
) -> None:
    layer = FakeLayer()
    stages = accelerate(model, layer, (4,))
    model.predict([ask(body(0))])  # captured, and known to have parts
    layer.asked.clear()
    passages = []
    for numbers in ((1, 2, 3), (4, 5)):
        passages.append(stages.begin([ask(body(number)) for number in numbers]))
        stages.prepare(passages[-1])
    for passage in passages:
        stages.compute(passage)
    assert len(layer.list_asked("replay")) == 2
    answers = [read(each) for passage in passages for each in stages.finish(passage)]
    assert [each["twice"][0] for each in answers] == [2.0, 4.0, 6.0, 8.0, 10.0]
    for passage in passages:
        stages.end(passage)
