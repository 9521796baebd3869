"""BaseHandler by itself and as a base class, with every kind of model it loads."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.errors import HandlerError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.models import Ask, Load, MakeModel, RunPython

torch: Any = pytest.importorskip("torch")

EXPECTED = [3.0, -1.0, 0.5]
"""What the saved weights make of [1, 2]."""


def bodies(model: Any, ask: Ask, *values: Any) -> list[Any]:
    answers = model.predict([ask(json.dumps(value).encode()) for value in values])
    assert [answer.error for answer in answers] == [False] * len(values), answers
    return [json.loads(bytes(answer.body)) for answer in answers]


@pytest.mark.parametrize(
    ("file", "model_file"),
    [
        ("state.pt", "eager_net.py"),
        ("nested.pth", "eager_net.py"),
        ("ddp.pt", "eager_net.py"),
        ("state.safetensors", "eager_net.py"),
        ("script.pt", None),
        ("program.pt2", None),
        ("dynamic.onnx", None),
        ("pairs.onnx", None),
    ],
)
def test_every_kind_of_model_answers(
    open_saved: Any, ask: Ask, file: str, model_file: str | None
) -> None:
    model = open_saved(file, model_file)
    answers = bodies(model, ask, [1.0, 2.0], [2.0, 1.0], [1.0, 2.0])
    assert answers == [EXPECTED, [3.0, 1.0, 0.5], EXPECTED]
    assert bodies(model, ask, [1.0, 2.0]) == [EXPECTED]


def test_numbers_are_read_where_no_type_says_json(open_saved: Any, ask: Ask) -> None:
    model = open_saved("script.pt")
    (answer,) = model.predict([ask(b"[1.0, 2.0]", "")])
    assert json.loads(answer.body) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
def test_the_encoding_of_json_is_found_out(open_saved: Any, ask: Ask, encoding: str) -> None:
    (answer,) = open_saved("script.pt").predict([ask("[1.0, 2.0]".encode(encoding), "")])
    assert json.loads(answer.body) == EXPECTED


def test_what_holds_no_numbers_is_the_clients_mistake(open_saved: Any, ask: Ask) -> None:
    model = open_saved("script.pt")
    answers = model.predict([ask(b"\x89PNG", "image/png"), ask(b"[1.0, 2.0]")])
    assert [answer.status for answer in answers] == [400, 200]
    assert bytes(answers[0].body) == b"the body must be JSON: numbers, or lists of them"


def test_inputs_of_different_shapes_do_not_disturb_each_other(open_saved: Any, ask: Ask) -> None:
    model = open_saved("script.pt")
    assert len(bodies(model, ask, [1.0, 2.0], [[1.0, 2.0], [2.0, 1.0]])) == 2


def test_an_onnx_model_takes_whole_numbers(open_saved: Any, ask: Ask) -> None:
    assert bodies(open_saved("dynamic.onnx"), ask, [1, 2]) == [EXPECTED]


def test_an_onnx_model_with_several_inputs_takes_objects(open_saved: Any, ask: Ask) -> None:
    model = open_saved("several.onnx")
    one, two = {"p": [1, 2], "q": [3, 4]}, {"p": [0, 0], "q": [1, 1]}
    assert bodies(model, ask, one) == [{"s": [4, 6], "d": [-2, -2]}]
    assert bodies(model, ask, one, two) == [
        {"s": [4, 6], "d": [-2, -2]},
        {"s": [1, 1], "d": [-1, -1]},
    ]


def test_an_onnx_model_names_its_inputs(
    open_saved: Any, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    (answer,) = open_saved("several.onnx").predict([ask(b'{"p": [1, 2]}')])
    assert answer.status == 503
    assert "the model takes the inputs ['p', 'q'], got ['p']" in caplog.text


def test_an_onnx_model_needs_no_torch(run_python: RunPython, saved: Path, model_dir: Path) -> None:
    shutil.copy(saved / "dynamic.onnx", model_dir)
    answer = run_python(
        """
import json, sys
from hatch_mar.model.loading import load
from hatch_mar.model.protocol import LoadOptions, Part, Request

options = LoadOptions(
    model_name="m", model_version="1", model_dir=sys.argv[1], handler="base_handler",
    manifest={"model": {"serializedFile": "dynamic.onnx"}},
)
request = Request(id="r", headers=[], parts=[Part("body", "application/json", b"[1, 2]")])
answer = load(options).predict([request])[0]
print(json.dumps([json.loads(answer.body), "torch" in sys.modules]))
""",
        str(model_dir),
    )
    assert answer == [EXPECTED, False]


SUBCLASS = """
from abc import ABC
from ts.torch_handler.base_handler import BaseHandler

class Mine(BaseHandler, ABC):
    def preprocess(self, data):
        return super().preprocess([row["numbers"] for row in data])

    def postprocess(self, data):
        return [{self.mapping[str(i)]: p for i, p in enumerate(row)} for row in data.tolist()]
"""


def test_a_subclass_overrides_hooks(open_saved: Any, ask: Ask) -> None:
    labels = json.dumps({"0": "sum", "1": "difference", "2": "half"})
    model = open_saved(
        "script.pt",
        handler="mine.py",
        files={"mine.py": SUBCLASS, "index_to_name.json": labels},
    )
    answers = model.predict([ask(b"[1.0, 2.0]", name="numbers") for _ in range(2)])
    assert json.loads(answers[1].body) == {"sum": 3.0, "difference": -1.0, "half": 0.5}


ATTRIBUTES = """
from ts.torch_handler.base_handler import BaseHandler

class Mine(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        assert self.initialized
        assert self.device.type == "cpu"
        assert self.map_location == "cpu"
        assert self.model_pt_path.endswith("script.pt")
        assert self.manifest["model"]["serializedFile"] == "script.pt"
        assert self.model_yaml_config == {"handler": {"a": 1}}
        assert self.mapping is None
        assert not self.explain
        assert not self.model.training
        assert self.get_device() is self.device
"""


def test_the_attributes_are_torchserves(open_saved: Any) -> None:
    config = {"handler": {"a": 1}}
    open_saved("script.pt", handler="mine.py", files={"mine.py": ATTRIBUTES}, config=config)


def test_a_subclass_may_load_its_model_itself(open_saved: Any, ask: Ask) -> None:
    source = """
import torch
from ts.torch_handler.base_handler import BaseHandler

class Mine(BaseHandler):
    def initialize(self, context):
        self.device = torch.device("cpu")
        self.model = torch.nn.Identity()
"""
    model = open_saved(handler="mine.py", files={"mine.py": source})
    assert bodies(model, ask, [1.0, 2.0], [3.0, 4.0]) == [[1.0, 2.0], [3.0, 4.0]]


def test_the_hook_that_loads_eager_models_can_be_overridden(open_saved: Any, ask: Ask) -> None:
    source = """
import torch
from ts.torch_handler.base_handler import BaseHandler

class Mine(BaseHandler):
    def _load_pickled_model(self, model_dir, model_file, model_pt_path):
        assert (model_file, model_pt_path) == ("net_file.py", None)
        return torch.nn.Identity()
"""
    model = open_saved(None, "net_file.py", handler="mine.py", files={"mine.py": source})
    assert bodies(model, ask, [1.0]) == [[1.0]]


RECURRENT = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = torch.nn.GRU(1, 2, num_layers=2, batch_first=True)

    def forward(self, x):
        return self.rnn(x)
"""


def test_a_state_as_long_as_the_batch_by_chance_is_not_dealt_out(open_saved: Any, ask: Ask) -> None:
    files = {"recurrent.py": RECURRENT}
    model = open_saved(None, "recurrent.py", files=files)
    first, second = [[1.0], [2.0]], [[3.0], [4.0]]
    together = bodies(model, ask, first, second)
    assert together == [bodies(model, ask, first)[0], bodies(model, ask, second)[0]]


def test_several_outputs_are_divided_in_one_run(open_saved: Any, ask: Ask) -> None:
    source = """
import torch

runs = []

class Net(torch.nn.Module):
    def forward(self, x):
        runs.append(len(x))
        return {"double": 2 * x, "runs": torch.full((len(x),), float(len(runs)))}
"""
    model = open_saved(None, "twice.py", files={"twice.py": source})
    assert bodies(model, ask, [1.0]) == [{"double": [2.0], "runs": 1.0}]
    assert bodies(model, ask, [1.0], [3.0]) == [
        {"double": [2.0], "runs": 2.0},
        {"double": [6.0], "runs": 2.0},
    ]


def test_the_time_a_batch_takes_is_measured(open_saved: Any, ask: Ask) -> None:
    model = open_saved("script.pt")
    bodies(model, ask, [1.0, 2.0])
    (measurement,) = model.drain_metrics()
    assert (measurement.name, measurement.unit) == ("HandlerTime", "Milliseconds")


EXPLAINER = """
from ts.torch_handler.base_handler import BaseHandler

class Mine(BaseHandler):
    def get_insights(self, tensor_data, raw_data, target):
        return [{"shape": list(tensor_data.shape), "raw": raw_data, "target": target}]

    def describe_handle(self):
        return {"layers": 1}
"""


def test_an_explanation_is_asked_for_by_a_header(open_saved: Any, ask: Ask) -> None:
    model = open_saved("script.pt", handler="mine.py", files={"mine.py": EXPLAINER})
    (answer,) = model.predict([ask(b"[1.0, 2.0]", explain=True)])
    assert json.loads(answer.body) == {"shape": [1, 2], "raw": [1.0, 2.0], "target": 0}


def test_a_model_that_cannot_explain_says_so(open_saved: Any, ask: Ask) -> None:
    (answer,) = open_saved("script.pt").predict([ask(b"[1.0, 2.0]", explain=True)])
    assert (answer.status, answer.error) == (501, True)


def test_a_model_describes_itself(open_saved: Any, ask: Ask) -> None:
    model = open_saved("script.pt", handler="mine.py", files={"mine.py": EXPLAINER})
    (answer,) = model.predict([ask(describe=True)])
    assert json.loads(answer.body) == {"layers": 1}


def test_weights_may_be_named_in_the_config(open_saved: Any, saved: Path, ask: Ask) -> None:
    config = {"handler": {"model_path": str(saved / "script.pt")}}
    assert bodies(open_saved(config=config), ask, [1.0, 2.0]) == [EXPECTED]


@pytest.mark.parametrize("where", ["beside", "above", "link"])
def test_eager_weights_may_be_named_in_the_config(
    open_saved: Any, saved: Path, model_dir: Path, ask: Ask, where: str
) -> None:
    path = {"beside": "state.safetensors", "above": str(saved / "state.safetensors")}
    if where == "beside":
        shutil.copy(saved / "state.safetensors", model_dir)
    elif where == "link":
        (model_dir / "weights").mkdir()
        (model_dir / "weights" / "net.safetensors").symlink_to(saved / "state.safetensors")
    config = {"handler": {"model_path": path.get(where, "weights/net.safetensors")}}
    model = open_saved(None, "path_net.py", config=config)
    assert bodies(model, ask, [1.0, 2.0]) == [EXPECTED]


def write_shards(model_dir: Path, weights: Any) -> dict[str, Any]:
    """Write one shard for each tensor, and their index; return the config that names it."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    placed = {key: f"{key}.safetensors" for key in weights}
    for key, name in placed.items():
        save_file({key: weights[key]}, str(model_dir / name))
    (model_dir / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    return {"handler": {"model_path": "model.safetensors.index.json"}}


def test_eager_weights_may_be_in_shards(
    open_saved: Any, model_dir: Path, ask: Ask, weights: Any
) -> None:
    model = open_saved(None, "shard_net.py", config=write_shards(model_dir, weights))
    assert bodies(model, ask, [1.0, 2.0]) == [EXPECTED]


def test_shards_without_architecture_are_named(
    make_model: MakeModel, load_model: Load, model_dir: Path, weights: Any
) -> None:
    options = make_model(handler="base_handler", config=write_shards(model_dir, weights))
    with pytest.raises(HandlerError, match=r"index\.json: holds weights without their arch"):
        load_model(options)


def test_a_directory_in_the_config_may_hold_weights_under_their_usual_name(
    open_saved: Any, model_dir: Path, ask: Ask, weights: Any
) -> None:
    (model_dir / "net").mkdir()
    write_shards(model_dir / "net", weights)
    model = open_saved(None, "folder_net.py", config={"handler": {"model_path": "net"}})
    assert bodies(model, ask, [1.0, 2.0]) == [EXPECTED]


@pytest.mark.parametrize("graph", ["link", "file"])
def test_onnx_finds_its_data_behind_links(
    open_saved: Any, saved: Path, model_dir: Path, ask: Ask, graph: str
) -> None:
    onnx = pytest.importorskip("onnx")
    root, cached = model_dir.parent, {}
    for digest in ("ab", "cd"):
        cached[digest] = root / "cache" / digest / f"{digest}12"
        cached[digest].parent.mkdir(parents=True)
    data = {"location": "net.data", "save_as_external_data": True, "size_threshold": 0}
    onnx.save(onnx.load(str(saved / "dynamic.onnx")), str(root / "net.onnx"), **data)
    (root / "net.data").rename(cached["ab"])
    (root / "net.onnx").rename(cached["cd"] if graph == "link" else model_dir / "net.onnx")
    if graph == "link":
        (model_dir / "net.onnx").symlink_to(cached["cd"])
    (model_dir / "net.data").symlink_to(cached["ab"])
    model = open_saved(config={"handler": {"model_path": "net.onnx"}})
    assert bodies(model, ask, [1.0, 2.0]) == [EXPECTED]


def test_onnx_data_outside_of_the_model_directory_is_refused(
    saved: Path, model_dir: Path, make_model: MakeModel, load_model: Load
) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(saved / "dynamic.onnx"))
    data = {"location": "net.data", "save_as_external_data": True, "size_threshold": 0}
    onnx.save(graph, str(model_dir / "net.onnx"), **data)
    (model_dir / "net.data").rename(model_dir.parent / "net.data")
    written = onnx.load(str(model_dir / "net.onnx"), load_external_data=False)
    for tensor in written.graph.initializer:
        next(each for each in tensor.external_data if each.key == "location").value = "../net.data"
    (model_dir / "net.onnx").write_bytes(written.SerializeToString())
    options = make_model(handler="base_handler", manifest={"serializedFile": "net.onnx"})
    with pytest.raises(HandlerError, match=r"net\.onnx: cannot be loaded: .*External data path"):
        load_model(options)


@pytest.mark.parametrize(
    ("files", "manifest", "said"),
    [
        ({}, {}, "the archive has no model file and no weights: BaseHandler loads"),
        ({"w.xyz": ""}, {"serializedFile": "w.xyz"}, "no model file and 'w.xyz'"),
        ({}, {"serializedFile": "w.pt"}, "w.pt: the model's checkpoint is not in the archive"),
        ({}, {"modelFile": "net.py"}, "net.py: the model file is not in the archive"),
        ({"bad.onnx": "x"}, {"serializedFile": "bad.onnx"}, "bad.onnx: cannot be loaded"),
        ({"bad.pt2": "x"}, {"serializedFile": "bad.pt2"}, "bad.pt2: not an exported program"),
        ({"w.safetensors": ""}, {"serializedFile": "w.safetensors"}, "needs the model file, too"),
        (
            {"two.py": "import torch\nclass A(torch.nn.Module): 0\nclass B(torch.nn.Module): 0\n"},
            {"modelFile": "two.py"},
            "two.py: must define exactly one subclass of torch.nn.Module; it has: 'A', 'B'",
        ),
        ({"none.py": "class A: pass\n"}, {"modelFile": "none.py"}, "it has: none"),
        ({"e.engine": ""}, {"serializedFile": "e.engine"}, "needs the package 'torch_tensorrt'"),
    ],
)
def test_what_cannot_be_loaded_is_named(
    make_model: MakeModel,
    load_model: Load,
    files: dict[str, str],
    manifest: dict[str, str],
    said: str,
) -> None:
    with pytest.raises(HandlerError) as caught:
        load_model(make_model(files, handler="base_handler", manifest=manifest))
    assert said in str(caught.value)
    assert str(caught.value).startswith("handler 'base_handler': ")
    assert caught.value.traceback == ""


def test_weights_without_architecture_are_named(open_saved: Any) -> None:
    with pytest.raises(HandlerError, match=r"state\.pt: holds weights without their architecture"):
        open_saved("state.pt")


def test_weights_of_another_model_name_the_keys(open_saved: Any) -> None:
    source = "import torch\nclass Other(torch.nn.Module):\n    pass\n"
    with pytest.raises(HandlerError, match=r"has unexpected layer\.weight, layer\.bias"):
        open_saved("state.pt", "other_net.py", files={"other_net.py": source})


def test_a_pickle_needs_the_authors_word(
    open_saved: Any, saved: Path, ask: Ask, weights: Any
) -> None:
    torch.save({"state_dict": weights, "args": Unexpected()}, saved / "pickled.pt")
    with pytest.raises(HandlerError, match=r"pickled\.pt: holds more than tensors"):
        open_saved("pickled.pt", "pickled_net.py")
    model = open_saved("pickled.pt", "pickled_net.py", trusted_pickle=("pickled.pt",))
    assert bodies(model, ask, [1.0, 2.0]) == [EXPECTED]


class Unexpected:
    """Something that no state_dict holds."""


def test_an_engine_inside_torchscript_needs_torch_tensorrt(
    make_model: MakeModel, load_model: Load, model_dir: Path
) -> None:
    with zipfile.ZipFile(model_dir / "engine.pt", "w") as box:
        box.writestr("engine/constants.pkl", b"")
        box.writestr(
            "engine/code/__torch__.py", b"engine : __torch__.torch.classes.tensorrt.Engine"
        )
    options = make_model(handler="base_handler", manifest={"serializedFile": "engine.pt"})
    with pytest.raises(HandlerError, match="'tensorrt': needs the package 'torch_tensorrt'"):
        load_model(options)


def test_without_torch_its_models_say_what_they_need(
    run_python: RunPython, saved: Path, model_dir: Path
) -> None:
    shutil.copy(saved / "script.pt", model_dir)
    said = run_python(
        """
import json, sys
sys.modules["torch"] = None
from hatch_mar.errors import HandlerError
from hatch_mar.model.loading import load
from hatch_mar.model.protocol import LoadOptions

try:
    load(LoadOptions(
        model_name="m", model_version="1", model_dir=sys.argv[1], handler="base_handler",
        manifest={"model": {"serializedFile": "script.pt"}},
    ))
except HandlerError as error:
    print(json.dumps(str(error)))
""",
        str(model_dir),
    )
    assert said == (
        "handler 'base_handler': runtime 'torchscript': needs the package 'torch', "
        "which is not installed"
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_model_that_was_compiled_ahead_of_time(
    open_saved: Any, saved: Path, ask: Ask, weights: Any
) -> None:
    layer = torch.nn.Linear(2, 3)
    layer.load_state_dict({key.removeprefix("layer."): value for key, value in weights.items()})
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        rows = torch.export.Dim("rows", min=1, max=64)
        example = (torch.zeros(2, 2),)
        program = torch.export.export(layer.eval(), example, dynamic_shapes=({0: rows},))
        package = str(saved / "compiled.pt2")
        torch._inductor.aoti_compile_and_package(program, package_path=package)
    model = open_saved("compiled.pt2")
    assert bodies(model, ask, [1.0, 2.0], [1.0, 2.0]) == [EXPECTED] * 2
    assert bodies(model, ask, [1.0, 2.0]) == [EXPECTED]  # to the code, one is less than it may be


class Squares(torch.nn.Module):  # type: ignore[misc]  # torch is Any here
    """Compiled, it is a loop of its own over the memory that it is given."""

    def forward(self, numbers: Any) -> Any:
        return numbers * numbers + 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_code_is_not_given_what_it_would_read_beyond(
    open_saved: Any, saved: Path, ask: Ask
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = torch.export.Dim("rows", min=1, max=64)
        example = (torch.zeros(2, 4),)
        program = torch.export.export(Squares(), example, dynamic_shapes=({0: rows},))
        package = str(saved / "squares.pt2")
        torch._inductor.aoti_compile_and_package(program, package_path=package)
    model = open_saved("squares.pt2")
    assert model._handler.model.get_constant_fqns() == []
    assert bodies(model, ask, [0.0, 1.0, 2.0, 3.0]) == [[1, 2, 5, 10]]
    for wrong in ([1.0], [1.0] * 5, [1] * 4):
        for count in (1, 2):
            answers = model.predict([ask(json.dumps(wrong).encode())] * count)
            assert [answer.status for answer in answers] == [503] * count
    assert bodies(model, ask, [0.0, 1.0, 2.0, 3.0]) == [[1, 2, 5, 10]]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_library_that_was_compiled_ahead_of_time(
    open_saved: Any, saved: Path, ask: Ask, weights: Any
) -> None:
    layer = torch.nn.Linear(2, 3)
    layer.load_state_dict({key.removeprefix("layer."): value for key, value in weights.items()})
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        rows = torch.export.Dim("rows", min=1, max=64)
        torch._export.aot_compile(
            layer.eval(),
            (torch.zeros(2, 2),),
            dynamic_shapes=({0: rows},),
            options={"aot_inductor.output_path": str(saved / "compiled.so")},
        )
    model = open_saved("compiled.so")
    assert bodies(model, ask, [1.0, 2.0], [1.0, 2.0]) == [EXPECTED] * 2
    assert bodies(model, ask, [1.0, 2.0]) == [EXPECTED]


def test_a_library_that_is_none(open_saved: Any, saved: Path) -> None:
    (saved / "compiled.so").write_bytes(b"no library")
    with pytest.raises(HandlerError, match=r"compiled\.so: cannot be loaded by torch .*again"):
        open_saved("compiled.so")
