"""From model-config.yaml to a model that is ready, in this process."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.archive.seal import Example
from hatch_mar.model.context import Context
from hatch_mar.model.cuda.opening import open_forward
from hatch_mar.model.devices import name_device

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.model.protocol import LoadOptions
    from tests.support.models import Ask, Load, MakeModel, RunPython

torch = pytest.importorskip("torch")

FACTORY = """
import torch
from hatch_mar import handler_factory

class Net(torch.nn.Module):
    lengths = []

    def forward(self, x):
        self.lengths.append(len(x))
        return x * 2

handler = handler_factory(Net, lambda sample: torch.tensor(sample))
"""
SUBCLASS = """
import torch
from ts.torch_handler.base_handler import BaseHandler

class Handler(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        self.model = torch.nn.Sequential(self.model, torch.nn.ReLU())
"""
NET = """
import torch

class Net(torch.nn.Module):
    lengths = []

    def forward(self, x):
        self.lengths.append(len(x))
        return x * 2
"""
EXAMPLE = Example(input="in.json", output="out.json", content_type="application/json").as_dict()
FILES = {"in.json": "[1.0, -2.0]", "out.json": "[2.0, -4.0]"}


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def make_factory(make_model: MakeModel) -> Any:
    def make(**options: Any) -> LoadOptions:
        options = {"examples": [EXAMPLE], "batch_size": 4, **options}
        return make_model({"handler.py": FACTORY, **FILES}, handler="handler:handler", **options)

    return make


def lengths_of(model: Any) -> list[int]:
    lengths: list[int] = model.context.forward.model.lengths
    return lengths


def test_every_bucket_is_warm_before_the_first_request(
    make_factory: Any, load_model: Load, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(make_factory(config={"cuda": {"buckets": True}}))
    model.warm()
    model.check_examples()
    learnt, probed, warmed, golden = 1, 1, [4, 2, 1], [1]
    assert lengths_of(model) == [learnt, probed, *warmed, *golden]
    assert "cuda: warmed batches of 1, 2, 4 in " in caplog.text
    answers = model.predict([ask(b"[1.0, 2.0]", id=str(index)) for index in range(3)])
    assert [json.loads(bytes(each.body)) for each in answers] == [[2.0, 4.0]] * 3
    assert lengths_of(model)[-1] == 4
    assert model.describe_forward() == {"precision": "float32", "buckets": [1, 2, 4]}


def test_without_buckets_the_longest_and_the_shortest_are(
    make_factory: Any, load_model: Load
) -> None:
    model = load_model(make_factory(config={"cuda": {"precision": "bfloat16"}}))
    model.warm()
    assert lengths_of(model) == [1, 4, 1]  # the first is the handler's, to see what can be divided


def test_what_was_measured_meanwhile_is_nobodys(make_model: MakeModel, load_model: Load) -> None:
    manifest, config = {"modelFile": "net.py"}, {"cuda": {"buckets": True}}
    options = {"manifest": manifest, "config": config, "examples": [EXAMPLE], "batch_size": 2}
    model = load_model(make_model({"net.py": NET, **FILES}, handler="base_handler", **options))
    model.warm()
    assert sorted(set(lengths_of(model))) == [1, 2]
    assert model.drain_metrics() == []


def test_without_an_example_the_first_requests_pay(
    make_factory: Any, load_model: Load, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(make_factory(config={"cuda": {}}, examples=()))
    model.warm()
    assert lengths_of(model) == []
    assert "cuda: there is no golden example to warm the model with" in caplog.text


def test_an_example_that_fails_ends_the_warming_and_no_more(
    make_factory: Any, model_dir: Path, load_model: Load, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(make_factory(config={"cuda": {"buckets": True}}))
    (model_dir / "in.json").write_text('"text"')
    model.warm()
    assert "cuda: warming with 'in.json', 4 at once: answered 503 Prediction failed" in caplog.text


def test_without_the_section_nothing_is_imported_and_nothing_warmed(run_python: RunPython) -> None:
    code = """
import json, sys
from hatch_mar.model.loading import load
from hatch_mar.model.protocol import LoadOptions
import pathlib, tempfile
with tempfile.TemporaryDirectory() as directory:
    pathlib.Path(directory, "handler.py").write_text("def handle(data, context): return data")
    model = load(LoadOptions(model_name="m", model_version="1", model_dir=directory,
                             handler="handler.py", config={"pt2": "eager"}))
    model.warm()
    assert model.describe_forward() is None
    print(json.dumps([name for name in sys.modules if "cuda" in name or name == "torch"]))
"""
    assert run_python(code) == []


def test_a_subclass_may_put_another_model_in_its_place(
    make_model: MakeModel, load_model: Load, ask: Ask
) -> None:
    options = {"manifest": {"modelFile": "net.py"}, "config": {"cuda": {"buckets": True}}}
    files = {"net.py": NET, "own.py": SUBCLASS, **FILES}
    model = load_model(make_model(files, handler="own.py", batch_size=4, **options))
    answers = model.predict([ask(b"[1.0, -2.0]", id=str(index)) for index in range(3)])
    assert [json.loads(bytes(each.body)) for each in answers] == [[2.0, 0.0]] * 3


OWN_INFERENCE = """
from ts.torch_handler.base_handler import BaseHandler

class Handler(BaseHandler):
    def inference(self, data):
        return self.model(data)
"""


def test_a_handler_that_calls_its_model_itself_is_told_so(
    make_model: MakeModel, load_model: Load, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"net.py": NET, "own.py": OWN_INFERENCE, **FILES}
    options = {"manifest": {"modelFile": "net.py"}, "config": {"cuda": {"buckets": True}}}
    load_model(make_model(files, handler="own.py", examples=[EXAMPLE], **options)).warm()
    assert "cuda: ignored: the handler calls its model itself, in `inference`" in caplog.text


def test_so_is_one_that_loads_it_itself(
    make_model: MakeModel, load_model: Load, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"cuda": {"precision": "bfloat16", "pipeline": False}}
    source = "def handle(data, context): return data"
    load_model(make_model({"handler.py": source}, config=config))
    assert "cuda.precision: ignored: the handler, no BaseHandler, runs its model" in caplog.text
    assert "cuda.pipeline" not in caplog.text


def test_compiled_code_is_kept_where_the_cache_is(tmp_path: Path, run_python: RunPython) -> None:
    code = f"""
import json, os, pathlib, sys
os.environ["HATCH_MAR_CACHE_DIR"] = {str(tmp_path)!r}
os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
from hatch_mar.model.loading import load
from hatch_mar.model.protocol import LoadOptions
pathlib.Path({str(tmp_path)!r}, "own.py").write_text(
    "import os\\nwhere = os.environ['TORCHINDUCTOR_CACHE_DIR']\\ndef handle(*_): return [where]")
config = {{"pt2": {{"compile": {{"enable": True}}}}, "cuda": {{}}}}
load(LoadOptions(model_name="m", model_version="1", model_dir={str(tmp_path)!r},
                 handler="own.py", config=config))
print(json.dumps(sys.modules["own"].where))
"""
    kept = run_python(code)
    assert kept.startswith(f"{tmp_path}/compiled/inductor/torch-{torch.__version__}-cpython-")


@pytest.mark.parametrize(
    ("model", "section", "told"),
    [
        (abs, {"precision": "bfloat16"}, "cuda.precision: ignored: the model, a builtin_function"),
        (abs, {"channelsLast": True}, "cuda.channelsLast: ignored: the model, a builtin_function"),
        (torch.nn.ReLU(), {"graphs": True}, "cuda.graphs: ignored: there is no GPU here"),
    ],
)
def test_what_a_model_cannot_do_is_left_out_with_a_warning(
    model: Any, section: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    forward = open_forward(model, torch.device("cpu"), {"cuda": section}, 2)
    assert forward is not None
    assert forward(torch.tensor([-3.0])).shape == (1,)
    assert told in caplog.text
    assert forward.describe()["precision"] == "float32"


def test_what_is_compiled_already_is_not_compiled_again() -> None:
    def model(x: Any) -> Any:
        return x

    config = {"pt2": {"compile": {"enable": True}}, "cuda": {"buckets": True, "aotInductor": True}}
    forward = open_forward(model, torch.device("cpu"), config, 2)
    assert forward is not None
    assert forward.model is model
    assert forward(torch.ones(1, 2)).tolist() == [[1.0, 1.0]]


def test_pt2_and_compiling_ahead_are_one_too_many(caplog: pytest.LogCaptureFixture) -> None:
    options = {"enable": True, "backend": "eager"}
    config = {"pt2": {"compile": options}, "cuda": {"aotInductor": True}}
    forward = open_forward(torch.nn.ReLU(), torch.device("cpu"), config, 2)
    assert forward is not None
    assert "cuda.aotInductor: ignored: pt2 compiles the model" in caplog.text


def test_an_onnx_model_is_told_what_is_torchs(caplog: pytest.LogCaptureFixture) -> None:
    config = {"cuda": {"precision": "float16", "tensorrt": True}}
    assert open_forward(object(), name_device(None), config, 2) is None
    assert "cuda.precision: ignored: this model is not run by torch" in caplog.text
    assert "tensorrt" not in caplog.text


def test_a_section_that_is_none_is_as_good_as_none() -> None:
    context = Context("m", ".", {}, 1, None, model_yaml_config={"cuda": 3})
    assert context.accelerate(torch.nn.ReLU(), torch.device("cpu")) is None


COMPILED = """
import json, sys, warnings
warnings.simplefilter("ignore")  # torch deprecates what it uses itself
from hatch_mar.archive.seal import Example
from hatch_mar.model.loading import load
from hatch_mar.model.protocol import LoadOptions, Part, Request

directory = sys.argv[1]
example = Example(input="in.json", output="in.json", content_type="application/json")
model = load(LoadOptions(
    model_name="m", model_version="1", model_dir=directory, handler="base_handler",
    manifest={"model": {"modelFile": "net.py"}}, batch_size=4, examples=[example.as_dict()],
    config={"pt2": {"compile": {"enable": True}}, "cuda": {"buckets": True}},
))
model.warm()
import torch
counters = torch._dynamo.utils.counters
compiled = counters["frames"]["total"]
for count in (3, 1, 4, 2):
    part = Part("body", "application/json", b"[1.0, 2.0]")
    model.predict([Request(id=str(n), headers=(), parts=[part]) for n in range(count)])
found = counters["inductor"]["fxgraph_cache_hit"]
print(json.dumps([compiled, counters["frames"]["total"] - compiled, found]))
"""


@pytest.mark.slow
def test_what_is_warm_is_not_compiled_again_and_a_restart_finds_it(
    tmp_path: Path, run_python: RunPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    (tmp_path / "net.py").write_text(NET.replace("self.lengths.append(len(x))", ""))
    (tmp_path / "in.json").write_text(FILES["in.json"])
    assert run_python(COMPILED, str(tmp_path)) == [3, 0, 0]
    assert run_python(COMPILED, str(tmp_path)) == [3, 0, 3]
