"""`handler_factory`: what becomes of an author's functions."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections import namedtuple
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.errors import HandlerError
from hatch_mar.model.factory import collate, divide, handler_factory, plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.models import Ask, Load, MakeModel

torch: Any = pytest.importorskip("torch")
Module: Any = torch.nn.Module
Image = pytest.importorskip("PIL.Image")

numbers = st.floats(-100, 100, width=32)


class Net(Module):  # type: ignore[misc]
    """Counts how often it runs, and on how many samples."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[int] = []

    def forward(self, x: Any) -> Any:
        self.runs.append(len(x))
        return 2 * x


def rows(*bodies: Any) -> list[dict[str, Any]]:
    return [{"body": body} for body in bodies]


@pytest.mark.parametrize("key", ["data", "body"])
def test_functions_see_one_sample_each(key: str) -> None:
    handler = handler_factory(
        Net,
        preprocess_function=lambda sample: torch.tensor([float(sample)]),
        postprocess_function=lambda output: output.item() + 1,
    )
    assert handler([{key: 1}, {key: 2}]) == [3.0, 5.0]


def test_arguments_reach_the_init_function() -> None:
    seen: dict[str, Any] = {}

    def init_function(in_dim: int, layer_dims: list[int]) -> Any:
        seen.update(in_dim=in_dim, layer_dims=layer_dims)
        return torch.nn.Identity()

    handler = handler_factory(init_function=init_function, in_dim=2, layer_dims=[3])
    assert handler(None) is None
    assert seen == {"in_dim": 2, "layer_dims": [3]}


def test_nothing_runs_before_the_first_call() -> None:
    handler = handler_factory(lambda: pytest.fail("too early"))
    assert not handler.initialized


def test_a_batch_is_one_run_of_the_model() -> None:
    handler = handler_factory(Net)
    assert handler(rows([1.0])) == [[2.0]]
    assert handler(rows([1.0], [2.0], [3.0])) == [[2.0], [4.0], [6.0]]
    assert handler.model.runs == [1, 3]


def test_inputs_of_different_shapes_run_one_by_one() -> None:
    handler = handler_factory(Net)
    assert handler(rows([1.0], [1.0, 2.0])) == [[2.0], [2.0, 4.0]]


@given(st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=1, max_size=8))
def test_an_answer_does_not_depend_on_its_batch(bodies: list[list[float]]) -> None:
    handler = handler_factory(Net)
    assert handler(rows(*bodies)) == [handler(rows(body))[0] for body in bodies]  # type: ignore[index]


@given(st.integers(1, 4), st.integers(1, 4))
def test_a_recurrent_state_is_never_dealt_out(layers: int, count: int) -> None:
    torch.manual_seed(0)
    handler = handler_factory(lambda: torch.nn.GRU(1, 2, num_layers=layers, batch_first=True))
    bodies = [[[float(i)], [1.0]] for i in range(count)]
    together = handler(rows(*bodies))
    alone = [handler(rows(body))[0] for body in bodies]  # type: ignore[index]
    assert json.dumps(together) == json.dumps(alone) or torch.allclose(
        flatten(together), flatten(alone), atol=1e-6
    )


def flatten(value: Any) -> Any:
    if isinstance(value, list):
        return torch.cat([flatten(item) for item in value])
    return torch.tensor([value])


def test_a_tuple_gives_positional_arguments() -> None:
    class Sum(Module):  # type: ignore[misc]
        def forward(self, a: Any, b: Any) -> Any:
            return a + b

    handler = handler_factory(Sum, preprocess_function=lambda x: (torch.tensor(x), torch.ones(1)))
    assert handler(rows([1.0], [2.0])) == [[2.0], [3.0]]


def test_a_mapping_gives_keyword_arguments() -> None:
    class Sum(Module):  # type: ignore[misc]
        def forward(self, *, a: Any, b: Any) -> Any:
            return {"sum": a + b, "nothing": None}

    handler = handler_factory(Sum)
    assert handler(rows({"a": 1, "b": 2}, {"a": 3, "b": 4})) == [
        {"sum": 3, "nothing": None},
        {"sum": 7, "nothing": None},
    ]


def test_a_detector_returns_a_list_with_a_mapping_per_sample() -> None:
    class Detector(Module):  # type: ignore[misc]
        def forward(self, images: Any) -> Any:
            return [{"boxes": image[None], "score": image.sum()} for image in images]

    handler = handler_factory(Detector)
    assert handler(rows([1.0, 2.0], [3.0, 4.0])) == [
        {"boxes": [[1.0, 2.0]], "score": 3.0},
        {"boxes": [[3.0, 4.0]], "score": 7.0},
    ]


def test_a_model_that_returns_one_number_for_its_batch_runs_one_by_one() -> None:
    class Total(Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x.sum()

    handler = handler_factory(Total)
    assert handler(rows([1.0], [2.0])) == [1.0, 2.0]


def test_levels_that_are_as_many_as_samples_are_not_samples() -> None:
    class Pyramid(Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return [x, 10 * x]

    handler = handler_factory(Pyramid)
    assert handler(rows([1.0], [2.0])) == [[[[1.0]], [[10.0]]], [[[2.0]], [[20.0]]]]


def test_a_model_that_is_no_module_sees_one_sample_each() -> None:
    handler = handler_factory(lambda: str.upper)
    assert handler(rows("a", "b")) == ["A", "B"]


def test_a_row_without_data_or_body_is_the_sample() -> None:
    handler = handler_factory(lambda: sorted)
    assert handler([{"left": 1, "right": 2}]) == [["left", "right"]]


def test_tensors_and_arrays_in_an_answer_become_lists() -> None:
    numpy = pytest.importorskip("numpy")
    value = {numpy.int64(1): (torch.tensor([1, 2]), numpy.float32(0.5), "x")}
    assert plain(value) == {1: [[1, 2], 0.5, "x"]}


def test_no_gradients_are_kept() -> None:
    def postprocess(output: Any) -> bool:
        output += 1  # not allowed outside of inference mode
        return bool(output.requires_grad)

    handler = handler_factory(lambda: torch.nn.Linear(1, 1), postprocess_function=postprocess)
    assert handler(rows([1.0])) == [False]


def test_a_model_is_put_into_evaluation_mode() -> None:
    handler = handler_factory(lambda: torch.nn.Dropout(0.9))
    assert handler(rows([1.0, 1.0])) == [[1.0, 1.0]]


Pair = namedtuple("Pair", "first second")  # noqa: PYI024 - as models written without types do


def test_a_named_tuple_keeps_its_names() -> None:
    parts = divide(Pair(torch.tensor([1, 2]), torch.tensor([3, 4])), 2)
    assert parts is not None
    assert [(part.first.item(), part.second.item()) for part in parts] == [(1, 3), (2, 4)]


@pytest.mark.parametrize(
    "samples",
    [
        ["text", "text"],
        [{"a": 1}, {"b": 1}],
        [{"a": 1}, 1],
        [(1, 2), (1,)],
        [{"a": "text"}],
        [1, 1.0],
    ],
)
def test_what_does_not_fit_together_is_not_stacked(samples: list[Any]) -> None:
    assert collate(samples) is None


def png(width: int = 4, height: int = 3) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 7).save(buffer, "PNG")
    return buffer.getvalue()


SHOW = """
from base_handler import handler_factory

def describe(sample):
    return [type(sample).__name__, getattr(sample, "size", None)]

handler = handler_factory(lambda: describe)
"""


@pytest.fixture
def seen(make_model: MakeModel, load_model: Load, ask: Ask) -> Callable[..., Any]:
    """Send a body to a handler that tells what its functions saw."""

    def send(body: bytes, content_type: str, decode: str | None = None) -> Any:
        config = None if decode is None else {"system": {"decodeImages": decode}}
        model = load_model(
            make_model({"handler.py": SHOW}, handler="handler:handler", config=config)
        )
        (response,) = model.predict([ask(body, content_type)])
        return response.status, json.loads(
            bytes(response.body)
        ) if not response.error else response.body

    return send


def test_an_image_arrives_as_an_image(seen: Any) -> None:
    assert seen(png(), "image/png") == (200, ["PngImageFile", [4, 3]])


def test_bytes_of_another_type_stay_bytes(seen: Any) -> None:
    assert seen(png(), "application/octet-stream") == (200, ["bytearray", None])


def test_images_can_be_left_alone(seen: Any) -> None:
    assert seen(png(), "image/png", "never") == (200, ["bytearray", None])


@pytest.mark.parametrize("content_type", ["", "application/octet-stream", "image/png"])
def test_images_can_be_told_by_their_content(seen: Any, content_type: str) -> None:
    assert seen(png(), content_type, "always") == (200, ["PngImageFile", [4, 3]])
    assert seen(b"no image", content_type, "always") == (200, ["bytearray", None])


def test_what_is_called_an_image_must_be_one(seen: Any) -> None:
    assert seen(b"no image", "image/png") == (400, b"the body is not an image that can be read")


def test_without_pillow_images_stay_bytes(seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image = png()
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert seen(image, "image/png") == (200, ["bytearray", None])


def test_a_broken_image_is_the_clients_mistake(seen: Any) -> None:
    status, message = seen(png(40, 30)[:600], "image/png")
    assert status == 400
    assert message.startswith(b"the image cannot be read")


LINEAR = """
from base_handler import handler_factory
from net import Net

handler = handler_factory(init_function=Net, width=3)
"""


@pytest.fixture
def load_linear(
    make_model: MakeModel, load_model: Load, saved: Path, model_dir: Path
) -> Callable[..., Any]:
    """Load `Net` through the factory with a checkpoint of `saved`."""

    def load_it(checkpoint: str, **options: Any) -> Any:
        shutil.copy(saved / "net.py", model_dir)
        if (saved / checkpoint).exists():
            shutil.copy(saved / checkpoint, model_dir)
        manifest = {"serializedFile": checkpoint}
        files = {"handler.py": LINEAR}
        return load_model(
            make_model(files, handler="handler:handler", manifest=manifest, **options)
        )

    return load_it


@pytest.mark.parametrize("checkpoint", ["state.pt", "nested.pth", "ddp.pt", "state.safetensors"])
def test_a_checkpoint_is_loaded(load_linear: Any, ask: Ask, checkpoint: str) -> None:
    (answer,) = load_linear(checkpoint).predict([ask(b"[1.0, 2.0]")])
    assert json.loads(answer.body) == [3.0, -1.0, 0.5]


def test_a_bad_item_fails_alone(load_linear: Any, ask: Ask) -> None:
    answers = load_linear("state.pt").predict([ask(b"[1.0, 2.0]"), ask(b'"x"'), ask(b"[0.0, 0.0]")])
    assert [answer.status for answer in answers] == [200, 503, 200]


def test_a_missing_checkpoint_is_named(load_linear: Any) -> None:
    with pytest.raises(HandlerError, match=r"gone\.pt: the model's checkpoint is not in"):
        load_linear("gone.pt")


def test_keys_that_do_not_match_are_named(load_linear: Any, saved: Path) -> None:
    torch.save({"layer.weight": torch.zeros(3, 2), "other": torch.zeros(1)}, saved / "wrong.pt")
    with pytest.raises(HandlerError) as caught:
        load_linear("wrong.pt")
    assert str(caught.value).endswith(
        "CheckpointError: wrong.pt: does not fit the model: lacks layer.bias; has unexpected other"
    )


def test_shapes_that_do_not_match_are_named(load_linear: Any, saved: Path, weights: Any) -> None:
    torch.save({**weights, "layer.bias": torch.zeros(9)}, saved / "long.pt")
    with pytest.raises(HandlerError, match=r"long\.pt: does not fit the model") as caught:
        load_linear("long.pt")
    assert "size mismatch for layer.bias" in caught.value.traceback


def test_a_checkpoint_must_hold_a_state_dict(load_linear: Any, saved: Path) -> None:
    torch.save([1, 2], saved / "list.pt")
    with pytest.raises(HandlerError, match=r"list\.pt: holds a list, not a state_dict"):
        load_linear("list.pt")


class Extra:
    """Something that no state_dict holds."""


def test_a_pickle_needs_the_authors_word(
    load_linear: Any, saved: Path, weights: Any, ask: Ask
) -> None:
    torch.save({"state_dict": weights, "args": Extra()}, saved / "extra.pt")
    with pytest.raises(HandlerError, match=r"extra\.pt: holds more than tensors"):
        load_linear("extra.pt")
    model = load_linear("extra.pt", trusted_pickle=("extra.pt",))
    assert json.loads(bytes(model.predict([ask(b"[1.0, 2.0]")])[0].body)) == [3.0, -1.0, 0.5]


def test_elsewhere_the_seal_has_the_authors_word(
    model_dir: Path, weights: Any, make_model: MakeModel
) -> None:
    make_model({"MAR-INF/SEAL.json": json.dumps({"trustedPickle": ["extra.pt"]})})
    torch.save({"state_dict": weights, "args": Extra()}, model_dir / "extra.pt")
    context = SimpleNamespace(
        system_properties={"model_dir": str(model_dir), "gpu_id": None},
        manifest={"model": {"serializedFile": "extra.pt"}},
        model_yaml_config={},
        get_request_header=lambda _idx, _key: None,
    )
    layer = torch.nn.Linear(2, 3)
    wrapped = torch.nn.ModuleDict({"layer": layer})
    handler_factory(lambda: wrapped)(None, context)
    assert layer.bias.tolist() == [0.0, 0.0, 0.5]


def test_a_directory_in_the_config_is_the_models_own_business(model_dir: Path) -> None:
    (model_dir / "llm").mkdir()
    context = SimpleNamespace(
        system_properties={"model_dir": str(model_dir)},
        model_yaml_config={"handler": {"model_path": "llm"}},
    )
    handler = handler_factory(torch.nn.Identity)
    handler(None, context)
    assert handler.initialized


@pytest.mark.parametrize(
    ("path", "place"),
    [("big.pt", "in the model's directory; put it there"), ("/models/big.pt", "on this machine")],
)
def test_weights_that_are_not_where_the_config_says_are_missed_by_name(
    model_dir: Path, path: str, place: str
) -> None:
    context = SimpleNamespace(
        system_properties={"model_dir": str(model_dir)},
        model_yaml_config={"handler": {"model_path": path}},
    )
    said = rf"^handler\.model_path: there is no file '{path}' {place}"
    with pytest.raises(FileNotFoundError, match=said):
        handler_factory(torch.nn.Identity)(None, context)
    handler = handler_factory(lambda: str.upper)  # no torch module: it may know where to look
    handler(None, context)
    assert handler.initialized


def test_a_link_to_weights_that_are_gone_says_where_they_were(
    model_dir: Path, tmp_path: Path
) -> None:
    (model_dir / "big.safetensors").symlink_to(tmp_path / "pruned")
    context = SimpleNamespace(
        system_properties={"model_dir": str(model_dir)},
        manifest={"model": {"serializedFile": "big.safetensors"}},
    )
    with pytest.raises(FileNotFoundError, match=r"^big\.safetensors: leads to .*pruned, which is"):
        handler_factory(torch.nn.Identity)(None, context)


def test_a_gpu_that_torch_cannot_see_leaves_the_cpu(
    model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    context = SimpleNamespace(
        system_properties={"model_dir": str(model_dir), "gpu_id": 0},
        model_yaml_config={"system": {"maxGPUMemory": 500}},
    )
    handler = handler_factory(torch.nn.Identity)
    handler(None, context)
    assert handler.device.type == "cpu"
    assert "sees no CUDA" in caplog.text


@pytest.mark.parametrize("limit", ["500", 0, -1, True, 2.5], ids=repr)
def test_a_limit_that_is_no_number_of_megabytes_is_passed_over(
    model_dir: Path, caplog: pytest.LogCaptureFixture, limit: Any
) -> None:
    context = SimpleNamespace(
        system_properties={"model_dir": str(model_dir), "gpu_id": None},
        model_yaml_config={"system": {"maxGPUMemory": limit}},
    )
    handler_factory(torch.nn.Identity)(None, context)
    assert f"maxGPUMemory: {limit!r} is no whole number of MB; ignored" in caplog.text


def test_an_init_function_must_return_a_model() -> None:
    with pytest.raises(TypeError, match="init_function returned None; it must return the model"):
        handler_factory(lambda: None)(None)


def test_asked_to_describe_itself_it_runs_nothing() -> None:
    context = SimpleNamespace(
        system_properties={}, get_request_header=lambda _, key: {"describe": "True"}.get(key)
    )
    handler = handler_factory(Net, preprocess_function=lambda _: pytest.fail("there is no sample"))
    assert handler([{}], context) == [{}]
