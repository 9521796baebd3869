"""Answers with the section `cuda` are those without it."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")

from hatch_mar.model.compilation import compile_model  # noqa: E402 - it needs torch
from hatch_mar.model.cuda.forward import Forward  # noqa: E402
from hatch_mar.model.cuda.section import CudaOptions  # noqa: E402
from tests.support.fake_cuda import FakeLayer, device_assert, out_of_memory  # noqa: E402

CPU = torch.device("cpu")


class Net(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """Two layers, and the lengths of the batches they saw."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.one, self.two = torch.nn.Linear(3, 8), torch.nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        if not torch.compiler.is_exporting():
            self.lengths.append(len(x))
        return self.two(torch.tanh(self.one(x)))


class Nested(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """Takes keyword arguments, gives a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, *, left: Any, right: Any) -> Any:
        out = self.net(left + right)
        return {"logits": out, "both": (out.argmax(1), None), "each": list(out)}


def accelerate(
    model: Any, *, batch_size: int = 8, layer: FakeLayer | None = None, **options: Any
) -> Forward:
    return Forward(
        model, device=CPU, options=CudaOptions(**options), batch_size=batch_size, layer=layer
    )


def rows(count: int, *shape: int) -> Any:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, *(shape or (3,)), generator=generator)


@given(st.integers(1, 9), st.sampled_from([True, (3,), (2, 5), (8,), (1, 8)]), st.booleans())
def test_answers_with_buckets_are_those_without(length: int, buckets: Any, graphs: bool) -> None:
    model = Nested().eval()
    forward = accelerate(
        model, buckets=buckets, graphs=graphs, layer=FakeLayer() if graphs else None
    )
    batch = {"left": rows(length), "right": rows(length)}
    for _ in range(2):
        got = forward(batch)
        with torch.inference_mode():
            wanted = model(**batch)
        assert torch.allclose(got["logits"], wanted["logits"], atol=1e-6)
        assert got["both"][0].equal(wanted["both"][0])
        assert got["both"][1] is None
        assert len(got["each"]) == length


def test_the_model_sees_buckets_only() -> None:
    model = Net()
    forward = accelerate(model, buckets=(4,))
    for length in (3, 1, 5, 8, 2):
        assert forward(rows(length)).shape == (length, 4)
    learnt, seen = model.lengths[:2], model.lengths[2:]
    assert learnt == [4, 8]
    assert seen == [4, 4, 8, 8, 4]


def test_what_is_longer_runs_as_it_is() -> None:
    model = Net()
    assert accelerate(model, buckets=True, batch_size=4)(rows(6)).shape == (6, 4)
    assert model.lengths == [6]


def test_an_output_that_is_not_in_rows_ends_the_buckets(caplog: pytest.LogCaptureFixture) -> None:
    def recurrent(x: Any) -> Any:
        return x.cumsum(1), x.sum(1).expand(4, len(x))  # a state of four layers

    forward = accelerate(recurrent, buckets=True)
    batch = rows(3)
    output, state = forward(batch)
    assert (output.shape, state.shape) == ((3, 3), (4, 3))
    assert "cuda.buckets: a part of the output of 1 rows has 4 rows; batches run" in caplog.text
    assert forward(rows(4))[1].shape == (4, 4)
    assert forward.describe() == {"precision": "float32"}


def test_other_arguments_go_to_the_model() -> None:
    seen: list[Any] = []

    def model(x: Any, scale: Any, *, shift: Any) -> Any:
        seen.append(len(x))
        return x * scale + shift

    forward = accelerate(model, buckets=True)
    assert forward(torch.ones(3, 2), 2, shift=1).tolist() == [[3.0, 3.0]] * 3
    assert seen == [3]


def test_what_is_no_batch_of_tensors_runs_as_it_is() -> None:
    forward = accelerate(lambda images: [len(each) for each in images], buckets=True)
    assert forward(([rows(2), rows(5)],)) == [2, 5]


def test_gradients_are_not_kept() -> None:
    assert not accelerate(Net(), buckets=True)(rows(2)).requires_grad


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_autocast_is_near_enough_and_its_output_is_float32(precision: str) -> None:
    model = Net()
    seen: list[Any] = []
    model.one.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    got = accelerate(model, precision=precision)(rows(5))
    assert seen == [getattr(torch, precision)]
    assert got.dtype == torch.float32
    assert torch.allclose(got, accelerate(model)(rows(5)), atol=0.05)


def test_images_and_weights_are_laid_out_channels_last() -> None:
    convolution = torch.nn.Conv2d(3, 4, 3)
    seen: list[Any] = []
    convolution.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = rows(2, 3, 8, 8)
    wanted = convolution(batch)
    seen.clear()
    forward = accelerate(convolution, channels_last=True, buckets=True)
    assert torch.allclose(forward(batch), wanted, atol=1e-6)
    last = torch.channels_last
    assert convolution.weight.is_contiguous(memory_format=last)
    assert all(each.is_contiguous(memory_format=last) for each in seen)
    assert forward.describe()["channelsLast"] is True


def test_torchscript_and_exported_programs_do_it_all(saved: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # see the runtime
        script = torch.jit.load(str(saved / "script.pt"))
    exported = torch.export.load(str(saved / "program.pt2")).module()
    for model in (script, exported):
        forward = accelerate(model, precision="bfloat16", channels_last=True, buckets=True)
        assert torch.allclose(forward(torch.tensor([[1.0, 2.0]] * 3)), torch.tensor([3, -1, 0.5]))


def test_an_exported_program_of_one_length_takes_them_all() -> None:
    program = torch.export.export(torch.nn.Linear(3, 2).eval(), (rows(4),)).module()
    forward = accelerate(program, buckets=(4,), batch_size=4)
    assert [len(forward(rows(length))) for length in (1, 4, 3)] == [1, 4, 3]


def test_compiled_code_is_made_for_each_bucket_and_no_more() -> None:
    compiled: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append([tuple(each.shape) for each in inputs if each.shape[-1:] == (3,)])
        return graph.forward

    torch._dynamo.reset()
    model = torch.nn.Linear(3, 2).eval()
    forward = accelerate(model, buckets=True, batch_size=4)
    options = {"pt2": {"compile": {"enable": True, "backend": backend}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hatch_mar.model.compilation.check_valid_pt2_backend", lambda _: True)
        forward.model = compile_model(model, options, shapes=len(forward.buckets))
    for length in (3, 1, 2, 4, 3, 2, 1):
        assert torch.allclose(forward(rows(length)), model(rows(length)), atol=1e-6)
    assert len(compiled) == 3


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_is_compiled_ahead_with_the_first_batch(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path))
    caplog.set_level(logging.INFO)
    model = Net().eval()
    forward = accelerate(model, aot_inductor=True, precision=precision, buckets=(4,))
    for length in (3, 1, 8):
        got = forward(rows(length))
        assert got.dtype == torch.float32
        assert torch.allclose(got, accelerate(model)(rows(length)), atol=0.05)
    assert forward.describe()["aotInductor"] is True
    assert caplog.text.count("cuda.aotInductor: compiled for cpu in ") == 1
    assert len(list((tmp_path / "compiled" / "aotinductor").glob("*.pt2"))) == 1


def test_what_cannot_be_compiled_ahead_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    class Branching(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def forward(self, x: Any) -> Any:
            return x + 1 if x.sum().item() > 0 else x

    forward = accelerate(Branching(), aot_inductor=True)
    for _ in range(2):
        assert forward(torch.ones(2, 3)).equal(torch.full((2, 3), 2.0))
    assert caplog.text.count("cuda.aotInductor: failed, the model runs as it is: ") == 1


class TestGraphs:
    def test_a_bucket_is_captured_once_and_replayed(self) -> None:
        model, layer = Net(), FakeLayer()
        forward = accelerate(model, buckets=(4,), graphs=True, layer=layer)
        for length in (3, 2, 4):
            got = forward(rows(length))
            with torch.inference_mode():
                assert torch.allclose(got, model(rows(length)), atol=1e-6)
        assert len(layer.list_asked("capture")) == 1
        assert len(layer.list_asked("replay")) == 2 + 3
        assert forward.describe() == {
            "precision": "float32",
            "buckets": [4, 8],
            "graphs": [4],
            "withoutGraph": {},
        }

    def test_nothing_else_runs_during_a_capture(self) -> None:
        layer = FakeLayer()
        accelerate(Net(), buckets=True, graphs=True, layer=layer)(rows(2))
        order = [asked.what for asked in layer.asked]
        assert order[: order.index("replay")] == ["synchronize", "synchronize", "capture"]

    def test_a_replay_waits_for_the_last_one_on_whatever_stream(self) -> None:
        layer = FakeLayer()
        forward = accelerate(Net(), buckets=(4,), graphs=True, layer=layer)
        forward(rows(3))
        layer.asked.clear()
        with layer.on(layer.stream()):
            forward(rows(2))
        forward(rows(4))
        order = [(asked.what, asked.stream) for asked in layer.asked]
        steps = ["wait", "replay", "record"]
        assert order == [(step, stream) for stream in ("stream2", "default") for step in steps]

    def test_an_answer_outlives_the_next_replay(self) -> None:
        forward = accelerate(Net(), buckets=True, graphs=True, layer=FakeLayer())
        first = forward(rows(2))
        before = first.clone()
        forward(rows(2) + 1)
        assert first.equal(before)

    def test_the_callers_batch_is_not_written_to(self) -> None:
        forward = accelerate(Net(), buckets=True, graphs=True, layer=FakeLayer())
        batch = rows(4)
        forward(batch)
        forward(rows(4) + 1)
        assert batch.equal(rows(4))

    def test_another_shape_or_type_runs_without(self) -> None:
        layer = FakeLayer()
        forward = accelerate(lambda x: x * 2, buckets=True, graphs=True, layer=layer)
        forward(rows(2, 3))
        replays = len(layer.list_asked("replay"))
        assert forward(rows(2, 5)).equal(rows(2, 5) * 2)
        assert forward(rows(2, 3).double()).dtype == torch.float64
        assert forward((rows(2, 3),)).shape == (2, 3)
        assert len(layer.list_asked("replay")) == replays

    def test_what_cannot_be_captured_runs_without_and_says_why(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        error = RuntimeError("operation not permitted when stream is capturing")
        layer = FakeLayer(faults={("capture", 2): error})
        forward = accelerate(Net(), buckets=True, graphs=True, layer=layer)
        for length in (1, 2, 4, 2):
            assert forward(rows(length)).shape == (length, 4)
        told = forward.describe()
        assert told["graphs"] == [1, 4]
        (reason,) = told["withoutGraph"].items()
        assert reason[0] == "2"
        assert "operation not permitted" in reason[1]
        assert "cuda.graphs: batches of 2 run without a graph: " in caplog.text
        assert len(layer.list_asked("capture")) == 3

    def test_no_memory_for_a_graph_is_memory_given_back(self) -> None:
        layer = FakeLayer(faults={("capture", 1): out_of_memory()})
        forward = accelerate(Net(), buckets=(4,), graphs=True, layer=layer)
        assert forward(rows(3)).shape == (3, 4)
        assert layer.list_asked("empty_cache")

    def test_memory_that_cannot_be_given_back_fails_no_batch(self) -> None:
        """So says the allocator of torch 2.12 and before, once a capture has failed."""
        refusal = RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")
        faults = {("capture", 1): out_of_memory(), ("empty_cache", 1): refusal}
        layer = FakeLayer(faults=faults)
        forward = accelerate(Net(), buckets=(4,), graphs=True, layer=layer)
        assert forward(rows(3)).shape == (3, 4)
        assert "4" in forward.describe()["withoutGraph"]

    def test_a_model_that_remembers_is_not_trusted_to_a_graph(self) -> None:
        calls = iter(range(100))
        forward = accelerate(
            lambda x: x + next(calls), buckets=(4,), graphs=True, layer=FakeLayer()
        )
        forward(rows(3))
        assert forward.describe()["graphs"] == []
        assert "another answer, off by" in forward.describe()["withoutGraph"]["4"]

    def test_a_device_that_failed_is_not_a_fallback(self) -> None:
        layer = FakeLayer()
        layer.kill_at("capture", 1)
        forward = accelerate(Net(), buckets=(4,), graphs=True, layer=layer)
        with pytest.raises(RuntimeError, match=str(device_assert())):
            forward(rows(3))

    def test_graphs_capture_precision_and_layout(self) -> None:
        model = torch.nn.Conv2d(3, 4, 3)
        options: dict[str, Any] = {"precision": "bfloat16", "channels_last": True, "buckets": (4,)}
        forward = accelerate(model, graphs=True, layer=FakeLayer(), **options)
        batch = rows(3, 3, 8, 8)
        got = forward(batch)
        assert forward.describe()["graphs"] == [4]
        assert got.dtype == torch.float32
        assert torch.allclose(got, accelerate(model)(batch), atol=0.05)

    def test_a_capture_is_told_of(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        accelerate(Net(), buckets=(4,), graphs=True, layer=FakeLayer())(rows(3))
        assert "cuda.graphs: batches of 4 run as a graph" in caplog.text
