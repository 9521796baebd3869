"""Weights are mapped: what a model's parameters are after loading, and what a model keeps."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.archive.write import write_archive
from hatch_mar.model.factory import CheckpointError, make_model
from hatch_mar.project.planning import make_plan
from hatch_mar.project.read import read_spec
from tests.support.runner import start_runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

torch: Any = pytest.importorskip("torch")
safetensors: Any = pytest.importorskip("safetensors.torch")
Module: Any = torch.nn.Module
Linear: Any = torch.nn.Linear
Parameter: Any = torch.nn.Parameter


class Counted:
    """A way to make a model that counts how often it is gone."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self.build = build
        self.runs = 0

    def __call__(self) -> Any:
        self.runs += 1
        return self.build()


def save(model: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.save_model(model, str(path))
    else:
        torch.save(model.state_dict(), path)
    return path


def mapped_files() -> Iterator[tuple[int, int, str]]:
    """Yield first address, end and path of everything that this process has mapped."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) > 5:
            start, _, end = fields[0].partition("-")
            yield int(start, 16), int(end, 16), fields[5]


def is_mapped(tensor: Any, path: Path) -> bool:
    """Tell whether the memory of `tensor` is the file at `path`."""
    at = tensor.data_ptr()
    return any(
        start <= at < end and name == str(path.resolve()) for start, end, name in mapped_files()
    )


def are_mapped(model: Any, path: Path) -> set[bool]:
    return {is_mapped(parameter, path) for parameter in model.parameters()}


class Kept(Module):  # type: ignore[misc]
    """Everything in a model that no checkpoint holds, beside what one does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Linear(4, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.register_buffer("ramp", torch.arange(4.0), persistent=False)
        self.scale = torch.tensor(2.0)

    def forward(self, x: Any) -> Any:
        return (self.norm(self.layer(x)) + self.ramp) * self.scale


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
def test_parameters_are_the_file(tmp_path: Path, name: str) -> None:
    trained = Kept().eval()
    path = save(trained, tmp_path / name)
    build = Counted(Kept)
    model = make_model(build, path).eval()
    assert are_mapped(model, path) == {True}
    assert build.runs == 1
    x = torch.ones(2, 4)
    assert torch.equal(model(x), trained(x))


def test_a_link_is_followed_into_the_cache(tmp_path: Path) -> None:
    cached = save(Linear(2, 2), tmp_path / "net.safetensors").rename(tmp_path / "0a1b")
    cached.chmod(0o444)
    link = tmp_path / "net.safetensors"
    link.symlink_to(cached)
    assert are_mapped(make_model(lambda: Linear(2, 2), link), cached) == {True}


def test_what_a_model_does_to_its_weights_stays_with_it(tmp_path: Path) -> None:
    path = save(Linear(2, 2), tmp_path / "net.safetensors")
    before = path.read_bytes()
    model = make_model(lambda: Linear(2, 2), path)
    with torch.no_grad():
        model.weight.zero_()
    assert path.read_bytes() == before


def test_evaluation_and_the_cpu_copy_nothing(tmp_path: Path) -> None:
    path = save(Linear(2, 2), tmp_path / "net.safetensors")
    model = make_model(lambda: Linear(2, 2), path).to("cpu").eval()
    assert are_mapped(model, path) == {True}


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_the_type_of_a_models_numbers_is_kept(tmp_path: Path, kind: Any) -> None:
    path = save(Linear(2, 2).to(kind), tmp_path / "net.safetensors")
    model = make_model(lambda: Linear(2, 2, dtype=kind), path)
    assert model.weight.dtype == kind
    assert are_mapped(model, path) == {True}


def test_weights_of_another_type_are_converted_and_said_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = Linear(2, 2).half()
    path = save(trained, tmp_path / "half.safetensors")
    model = make_model(lambda: Linear(2, 2), path)
    assert torch.equal(model.weight, trained.weight.float())
    assert model(torch.ones(1, 2)).dtype == torch.float32
    assert "half.safetensors: 2 tensors are converted" in caplog.text
    assert "torch.float16 here, and torch.float32 in the model" in caplog.text


class Tied(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 3)
        self.head = Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
def test_shared_weights_stay_shared(tmp_path: Path, name: str) -> None:
    trained = Tied()
    path = save(trained, tmp_path / name)  # safetensors leaves one of the two out
    model = make_model(Tied, path)
    assert model.head.weight is model.embedding.weight
    assert torch.equal(model.head.weight, trained.head.weight)
    assert are_mapped(model, path) == {True}


class TiedByMemory(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        values = torch.zeros(3)
        self.one = Parameter(values)
        self.two = Parameter(values)


def test_weights_that_share_memory_alone_stay_shared(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    safetensors.save_file({"one": torch.ones(3)}, str(path))
    model = make_model(TiedByMemory, path)
    assert model.two.tolist() == [1.0, 1.0, 1.0]


def test_a_shared_weight_that_is_nowhere_is_lacking(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    safetensors.save_file({"other": torch.ones(1)}, str(path))
    with pytest.raises(CheckpointError, match=r"lacks embedding\.weight, head\.weight; has unex"):
        make_model(Tied, path)


def test_recurrent_layers_use_what_was_loaded(tmp_path: Path) -> None:
    trained = torch.nn.LSTM(2, 3)
    path = save(trained, tmp_path / "net.safetensors")
    model = make_model(lambda: torch.nn.LSTM(2, 3), path)
    x = torch.ones(4, 1, 2)
    assert torch.equal(model(x)[0], trained(x)[0])
    assert are_mapped(model, path) == {True}


def test_a_class_that_registers_parameters_in_its_own_way_is_loaded(tmp_path: Path) -> None:
    class Own(Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._parameters["weight"] = Parameter(torch.ones(2))

    path = save(Own(), tmp_path / "net.safetensors")
    assert are_mapped(make_model(Own, path), path) == {True}


def test_layers_that_have_no_shape_yet_take_it_from_the_file(tmp_path: Path) -> None:
    trained = Linear(3, 2)
    path = save(trained, tmp_path / "net.safetensors")
    model = make_model(lambda: torch.nn.LazyLinear(2), path)
    assert torch.equal(model(torch.ones(1, 3)), trained(torch.ones(1, 3)))


def test_a_second_network_that_answers_too_is_not_left_without_weights(tmp_path: Path) -> None:
    def build() -> Any:
        model, other = Linear(2, 2), Linear(2, 2, bias=False)
        torch.nn.init.ones_(other.weight)
        model.register_forward_hook(lambda _module, _args, output: other(output))
        return model

    path = save(Linear(2, 2), tmp_path / "net.safetensors")
    first, second = make_model(build, path)(torch.ones(1, 2))[0]
    assert first == second


def test_what_an_author_has_noted_on_a_parameter_is_kept(tmp_path: Path) -> None:
    class Noted(Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = Parameter(torch.ones(2), requires_grad=False)
            self.weight.unit = "mm"

    path = save(Noted(), tmp_path / "net.safetensors")
    model = make_model(Noted, path)
    assert model.weight.unit == "mm"
    assert not model.weight.requires_grad


# Constructors that do something with the values of parameters


class DrawsParameters(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.token = Parameter(torch.randn(3))


def test_a_constructor_may_draw_its_parameters(tmp_path: Path) -> None:
    path = save(DrawsParameters(), tmp_path / "net.safetensors")
    assert are_mapped(make_model(DrawsParameters, path), path) == {True}


class DrawsFeatures(Module):  # type: ignore[misc]
    """Random features, the same whenever the seed is: nobody saves them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = Linear(3, 3)
        self.register_buffer("features", torch.randn(3), persistent=False)


def test_random_numbers_that_are_kept_are_those_of_the_seed(tmp_path: Path) -> None:
    trained = DrawsFeatures()
    path = save(trained, tmp_path / "net.safetensors")
    model = make_model(DrawsFeatures, path)
    assert torch.equal(model.features, trained.features)
    assert are_mapped(model, path) == {True}


class Branches(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = Linear(2, 2)
        if self.layer.weight.abs().sum().item() >= 0:
            self.sign = torch.tensor(1.0)


class KeepsInList(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = Linear(2, 2)
        self.all = [self.layer.weight]


class KeepsInClosure(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        weight = self.weight = Parameter(torch.zeros(2, 2))
        self.act = lambda x: x @ weight


class KeepsView(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = Linear(2, 2)
        self.row = self.layer.weight[0]


class KeepsCopy(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = Linear(2, 2)
        torch.nn.init.ones_(self.layer.weight)
        self.register_buffer("first", self.layer.weight.detach().clone(), persistent=False)


class Scripted(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.jit.trace(Linear(2, 2), torch.ones(1, 2))


class OldLoader(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = Linear(2, 2)

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Any:
        return super().load_state_dict(state_dict, strict=strict)


@pytest.mark.filterwarnings("ignore:.*TorchScript:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "kind", [Branches, KeepsInList, KeepsInClosure, KeepsView, KeepsCopy, Scripted, OldLoader]
)
def test_what_load_state_dict_makes_of_a_model_is_what_this_makes(
    tmp_path: Path, kind: type
) -> None:
    trained = kind()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.5)
    path = save(trained, tmp_path / "net.pt")
    usual = kind()
    usual.load_state_dict(torch.load(path))
    model = make_model(kind, path)
    assert look_at(model) == look_at(usual)


def look_at(model: Any) -> list[Any]:
    """Return all values in a model that its answers could depend on."""
    seen = [(name, value.tolist()) for name, value in model.state_dict().items()]
    seen += [(name, value.tolist()) for name, value in model.named_buffers()]
    for name, value in vars(model).items():
        if torch.is_tensor(value):
            seen.append((name, value.tolist()))
        elif isinstance(value, list):
            seen.append((name, [each.tolist() for each in value]))
        elif callable(value):
            seen.append((name, value(torch.ones(1, 2)).tolist()))
    return seen


Norms: Any = torch.nn.utils.parametrizations
NETWORKS: dict[str, tuple[Callable[[], Any], bool]] = {
    "transformer": (lambda: torch.nn.TransformerEncoderLayer(4, 2, 8), True),
    "batch norm": (lambda: torch.nn.Sequential(Linear(4, 4), torch.nn.BatchNorm1d(4)), True),
    "weight norm": (lambda: Norms.weight_norm(Linear(4, 4)), True),
    "spectral norm": (lambda: Norms.spectral_norm(Linear(4, 4)), True),
    "orthogonal": (lambda: Norms.orthogonal(Linear(4, 4)), True),
    "older spectral norm": (lambda: torch.nn.utils.spectral_norm(Linear(4, 4)), False),
    "traced": (lambda: torch.fx.symbolic_trace(Linear(4, 4)), True),
    "compiled": (lambda: torch.compile(Linear(4, 4), backend="eager"), True),
    "without memory": (lambda: Linear(4, 4, device="meta"), True),
}
"""Ways to make a network of four numbers to four, and whether its parameters can be mapped."""


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_answers_as_the_one_that_was_trained(tmp_path: Path, kind: str) -> None:
    build, mapped = NETWORKS[kind]
    trained = (build() if kind != "without memory" else Linear(4, 4)).eval()
    path = save(trained, tmp_path / "net.pt")
    model = make_model(build, path).eval()
    x = torch.ones(3, 4)
    assert torch.equal(model(x), trained(x))
    assert are_mapped(model, path) == {mapped}


def test_a_torch_without_what_it_takes_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Tied()
    path = save(trained, tmp_path / "net.safetensors")
    monkeypatch.delattr(torch.utils, "swap_tensors")  # as before torch 2.2
    model = make_model(Tied, path)
    assert torch.equal(model.head.weight, trained.head.weight)
    assert model.head.weight is model.embedding.weight
    assert are_mapped(model, path) == {False}


def test_a_constructor_that_fails_fails_with_its_own_error(tmp_path: Path) -> None:
    class Wrong(Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = Linear(2, 2)
            raise LookupError("no such width")

    path = save(Linear(2, 2), tmp_path / "net.safetensors")
    with pytest.raises(LookupError, match="no such width"):
        make_model(Wrong, path)


def test_weights_that_a_constructor_loads_first_are_replaced(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = save(Linear(2, 2), tmp_path / "net.safetensors")

    def build() -> Any:
        model = Linear(2, 2)
        model.load_state_dict({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)})
        return model

    assert are_mapped(make_model(build, path), path) == {True}
    assert not recwarn.list


def test_what_is_no_module_is_made_once_and_left_alone(tmp_path: Path) -> None:
    build = Counted(lambda: str.upper)
    assert make_model(build, tmp_path / "not.there") is str.upper
    assert build.runs == 1


# Shards


def write_shards(directory: Path, shards: dict[str, dict[str, Any]], **index: Any) -> Path:
    for name, tensors in shards.items():
        safetensors.save_file(tensors, str(directory / name), metadata={"format": "pt"})
    placed = {key: name for name, tensors in shards.items() for key in tensors}
    path = directory / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": placed, **index}))
    return path


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def test_all_shards_are_mapped(tmp_path: Path) -> None:
    weight, bias = torch.ones(2, 2), torch.tensor([3.0, 4.0])
    index = write_shards(tmp_path, {ONE: {"weight": weight}, TWO: {"bias": bias}})
    model = make_model(lambda: Linear(2, 2), index)
    assert torch.equal(model.weight, weight)
    assert torch.equal(model.bias, bias)
    assert is_mapped(model.weight, tmp_path / ONE)
    assert is_mapped(model.bias, tmp_path / TWO)


def test_what_does_not_fit_is_said_of_all_shards(tmp_path: Path) -> None:
    one, two = {"weight": torch.ones(2, 2)}, {"a": torch.ones(1), "b": torch.ones(1)}
    index = write_shards(tmp_path, {ONE: one, TWO: two})
    said = r"^model\.safetensors\.index\.json: does not fit the model: lacks bias; has unexpected a"
    with pytest.raises(CheckpointError, match=said):
        make_model(lambda: Linear(2, 2), index)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"w": "gone.safetensors"}}, r"names gone\.safetensors, not there"),
        ({"weight_map": {"lost": ONE}}, "lost not in the shard that it says"),
        ({"weight_map": {"w": "../w.safetensors"}}, "names a shard outside of its directory"),
        ({"weight_map": {"w": "/etc/passwd"}}, "names a shard outside of its directory"),
        ({"weight_map": {"w": 5}}, "not an index of shards"),
        ({"weight_map": []}, "not an index of shards"),
    ],
    ids=["gone", "lost", "above", "absolute", "number", "list"],
)
def test_an_index_that_names_nothing_of_use_is_named(
    tmp_path: Path, index: dict[str, Any], said: str
) -> None:
    path = write_shards(tmp_path, {ONE: {"weight": torch.ones(2, 2)}}, **index)
    with pytest.raises(CheckpointError, match=rf"^model\.safetensors\.index\.json: {said}"):
        make_model(lambda: Linear(2, 2), path)


# Files that hold something else


@pytest.mark.parametrize(
    ("name", "content"),
    [("w.safetensors", b""), ("w.safetensors", b"\xff" * 64), ("w.pt", b""), ("w.pt", b"PK\x03")],
    ids=["empty safetensors", "safetensors", "empty pt", "pt"],
)
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"^{name}: "):
        make_model(lambda: Linear(2, 2), tmp_path / name)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_checkpoint_that_is_cut_off_is_named(tmp_path: Path, name: str) -> None:
    path = save(Linear(64, 64), tmp_path / name)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match=rf"^{name}: not a (whole|checkpoint)"):
        make_model(lambda: Linear(64, 64), path)


def test_a_pickle_of_old_is_read(tmp_path: Path) -> None:
    trained = Linear(2, 2)
    path = tmp_path / "old.pt"
    torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=False)
    assert torch.equal(make_model(lambda: Linear(2, 2), path).weight, trained.weight)


class Anything:
    """Something that no state_dict holds."""


def test_a_refused_pickle_says_what_it_asks_for_and_the_ways_out(tmp_path: Path) -> None:
    torch.save({"state_dict": Linear(2, 2).state_dict(), "args": Anything()}, tmp_path / "run.pt")
    with pytest.raises(CheckpointError) as caught:
        make_model(lambda: Linear(2, 2), tmp_path / "run.pt")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("run.pt: holds more than tensors: asks for ")
    assert f"`{Anything.__module__}.Anything`" in lines[0]
    assert lines[1:3] == [
        "    from safetensors.torch import save_model",
        '    save_model(model, "run.safetensors")',
    ]
    assert "`trusted-pickle = true`" in lines[3]


# Workers share them

WIDTH = 4096
STACK = """
import torch

class Stack(torch.nn.Module):
    def __init__(self):
        super().__init__()
        layers = (torch.nn.Linear({width}, {width}, bias=False) for _ in range({layers}))
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x.sum(1)
"""
WARM = """
import torch
from ts.torch_handler.base_handler import BaseHandler

class Warm(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        self.inference(torch.ones(1, {width}))  # every page of the weights
"""
PYPROJECT = """
[project]
name = "stack"
version = "1.0"
dependencies = ["hatch-mar[serve]"]

[tool.mar]
handler = "handler.py"
model-file = "model.py"
weights = {{ source = "{source}", target = "stack.safetensors", sha256 = "{sha256}" }}
"""


def memory_of_workers(root: Path, *, layers: int) -> int:
    """Return the bytes that four workers of one model with so many layers take together."""
    root.mkdir()
    weights = root.with_suffix(".safetensors")  # outside of the project
    safetensors.save_file(
        {f"layers.{i}.weight": torch.full((WIDTH, WIDTH), 1e-4) for i in range(layers)},
        str(weights),
    )
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    (root / "model.py").write_text(STACK.format(width=WIDTH, layers=layers))
    (root / "handler.py").write_text(WARM.format(width=WIDTH))
    (root / "pyproject.toml").write_text(PYPROJECT.format(source=weights.as_uri(), sha256=digest))
    plan = make_plan(read_spec(root, environ={}))
    write_archive(plan, root / plan.filename)
    environ = {"HATCH_MAR_CACHE_DIR": str(root / "cache")}
    with start_runner(str(root / plan.filename), "--workers", "4", env=environ) as runner:
        assert runner.exited() is None, runner.output()
        workers = children_of(runner.process.pid)
        assert len(workers) == 4, runner.output()
        return sum(map(read_pss, workers))


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def read_pss(pid: int) -> int:
    """Return the bytes that are its own or its share, without libraries: strangers share those."""
    total, counts = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = ".so" not in line
        elif line.startswith("Pss:") and counts:
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_four_workers_share_one_gibibyte_of_weights(tmp_path: Path) -> None:
    without = memory_of_workers(tmp_path / "small", layers=0)
    layers = 2**30 // (4 * WIDTH**2)
    added = memory_of_workers(tmp_path / "large", layers=layers) - without
    assert 0.9 * 2**30 < added < 1.3 * 2**30
