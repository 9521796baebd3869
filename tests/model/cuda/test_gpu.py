"""The section `cuda` on a real GPU: the same answers, however they are computed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")

from hatch_mar.archive.seal import Example  # noqa: E402 - after what needs torch
from hatch_mar.model.cuda.opening import open_forward  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.model.cuda.forward import Forward
    from tests.support.models import Ask, Load, MakeModel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
BATCH_SIZE = 8
FACTORY = """
import torch
from hatch_mar import handler_factory

def make():
    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.GELU(), torch.nn.Linear(64, 3))

handler = handler_factory(make, lambda sample: torch.tensor(sample, dtype=torch.float32))
"""


def make_network() -> Any:
    torch.manual_seed(3)
    return (
        torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(4),
            torch.nn.Flatten(),
            torch.nn.Linear(256, 10),
        )
        .cuda()
        .eval()
    )


def images(count: int) -> Any:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, 32, 32, generator=generator).cuda()


def accelerate(model: Any, pt2: Any = None, **section: Any) -> Forward:
    config = {"cuda": section, **({} if pt2 is None else {"pt2": pt2})}
    forward = open_forward(model, torch.device("cuda", 0), config, BATCH_SIZE)
    assert forward is not None
    return forward


def run(model: Any, batch: Any) -> Any:
    with torch.inference_mode():
        return model(batch)


def assert_near(got: Any, wanted: Any, share: float) -> None:
    assert got.dtype == wanted.dtype
    assert (got - wanted).abs().max() <= share * wanted.abs().max()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("graphs", [False, True])
def test_answers_are_near_enough(graphs: bool, precision: str, channels_last: bool) -> None:
    model = make_network()
    wanted = {length: run(model, images(length)) for length in range(1, BATCH_SIZE + 2)}
    section = {"precision": precision, "channelsLast": channels_last, "buckets": True}
    forward = accelerate(model, **section, graphs=graphs)
    for length in (8, 4, 2, 1, 3, 5, 7, 9):
        got = forward(images(length))
        assert_near(got, wanted[length], 5e-3 if precision == "float32" else 5e-2)
    if graphs:
        assert forward.describe()["graphs"] == [1, 2, 4, 8]


def test_graphs_replay_what_the_model_does_to_the_bit_or_nearly() -> None:
    model = make_network()
    forward = accelerate(model, graphs=True)
    for length in (8, 6, 3, 1):
        for seed in range(3):
            batch = images(length) + seed
            assert_near(forward(batch), run(model, batch), 2e-3)


def test_two_batches_in_flight_keep_their_answers() -> None:
    model = make_network()
    forward = accelerate(model, graphs=True, buckets=[8])
    forward(images(8))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        outputs = [forward(images(8) + seed) for seed in range(4)]
    stream.synchronize()
    for seed, output in enumerate(outputs):
        assert_near(output, run(model, images(8) + seed), 2e-3)


class Waiting(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """Looks at a value, for which a capture cannot wait."""

    def forward(self, x: Any) -> Any:
        return x * 2 if x.sum().item() > 0 else x


def test_what_cannot_be_captured_runs_without() -> None:
    forward = accelerate(Waiting(), graphs=True)
    for length in (8, 3, 8, 1):
        assert forward(torch.ones(length, 4).cuda()).tolist() == [[2.0] * 4] * length
    told = forward.describe()
    assert told["graphs"] == []
    assert set(told["withoutGraph"]) == {"1", "4", "8"}
    good = accelerate(make_network(), graphs=True)  # the device is none the worse for it
    good(images(2))
    assert good.describe()["graphs"] == [2]


@pytest.mark.slow
@pytest.mark.parametrize("graphs", [False, True])
def test_buckets_are_compiled_once_each(graphs: bool) -> None:
    counters: Any = pytest.importorskip("torch._dynamo.utils").counters
    torch._dynamo.reset()
    model = make_network()
    wanted = {length: run(model, images(length)) for length in range(1, BATCH_SIZE + 1)}
    pt2 = {"compile": {"enable": True}}
    forward = accelerate(model, pt2, buckets=[1, 8], graphs=graphs)
    for length in (8, 1):
        forward(images(length))
    counters.clear()
    for length in (1, 5, 8, 3):
        assert_near(forward(images(length)), wanted[length], 1e-2)
    assert counters["frames"]["total"] == 0
    if graphs:
        assert forward.describe()["graphs"] == [1, 8]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_is_compiled_ahead(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path))
    model = make_network()
    forward = accelerate(model, precision=precision, aotInductor=True, buckets=True)
    for length in (8, 1, 3):
        assert_near(forward(images(length)), run(model, images(length)), 5e-2)
    assert forward.describe()["aotInductor"] is True


def test_graphs_are_there_before_the_first_request(
    make_model: MakeModel, load_model: Load, ask: Ask
) -> None:
    example = Example(input="in.json", output="in.json", content_type="application/json")
    files = {"handler.py": FACTORY, "in.json": "[1.0, 2.0]"}
    plain = make_model(files, handler="handler:handler", gpu_id=0, batch_size=4)
    requests = [ask(f"[{n}, {n + 1}]".encode(), id=str(n)) for n in range(3)]
    wanted = [json.loads(bytes(each.body)) for each in load_model(plain).predict(requests)]
    model = load_model(
        make_model(
            handler="handler:handler",
            gpu_id=0,
            batch_size=4,
            config={"cuda": {"graphs": True}},
            examples=[example.as_dict()],
        )
    )
    model.warm()
    told = model.describe_forward()
    assert told is not None
    assert told["graphs"] == [1, 2, 4]
    got = [json.loads(bytes(each.body)) for each in model.predict(requests)]
    assert torch.allclose(torch.tensor(got), torch.tensor(wanted), rtol=1e-2, atol=1e-3)
