"""`pt2` in the config, and the profiler: what runs a model, and what watches it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.errors import HandlerError
from hatch_mar.model.compilation import PT2Backend, compile_model, read_options

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.models import Ask, Load, MakeModel

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("pt2", "options"),
    [
        ({"compile": {"enable": True}}, {}),
        (
            {"compile": {"enable": True, "backend": "eager", "mode": "default"}},
            {"backend": "eager", "mode": "default"},
        ),
        ({"compile": {"enable": False, "backend": "eager"}}, None),
        ({"compile": {"backend": "eager"}}, None),
        ({"compile": None}, None),
        ({"export": {"aot_compile": True}}, None),
        ("inductor", {"backend": "inductor"}),
        ({"backend": "inductor", "dynamic": True}, {"backend": "inductor", "dynamic": True}),
        ("nothing_like_this", None),
        (None, None),
    ],
)
def test_options_are_read_as_torchserve_reads_them(pt2: Any, options: Any) -> None:
    assert read_options({"pt2": pt2}) == options


def test_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="pt2: must be a mapping or a backend's name, not 3"):
        read_options({"pt2": 3})


def test_every_backend_is_a_name() -> None:
    assert "inductor" in set(PT2Backend)
    assert len(PT2Backend) == 14


def test_a_model_is_compiled() -> None:
    model = torch.nn.Linear(2, 1)
    compiled = compile_model(model, {"pt2": {"compile": {"enable": True, "backend": "eager"}}})
    assert compiled is not model
    assert compiled(torch.ones(1, 2)).equal(model(torch.ones(1, 2)))


def test_what_cannot_be_compiled_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    model = torch.nn.Linear(2, 1)
    options = {"compile": {"enable": True, "backend": "eager", "no_such_option": 1}}
    assert compile_model(model, {"pt2": options}) is model
    assert "compiling the model with" in caplog.text


NET = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return 2 * x
"""


def test_a_handlers_model_is_compiled(make_model: MakeModel, load_model: Load, ask: Ask) -> None:
    config = {"pt2": {"compile": {"enable": True, "backend": "eager"}}}
    manifest = {"modelFile": "net.py"}
    options = make_model({"net.py": NET}, handler="base_handler", manifest=manifest, config=config)
    (answer,) = load_model(options).predict([ask(b"[1.0, 2.0]")])
    assert json.loads(bytes(answer.body)) == [2.0, 4.0]
    assert config == {"pt2": {"compile": {"enable": True, "backend": "eager"}}}


def test_a_wrong_section_is_a_load_error(make_model: MakeModel, load_model: Load) -> None:
    manifest = {"modelFile": "net.py"}
    made = make_model({"net.py": NET}, handler="base_handler", manifest=manifest, config={"pt2": 3})
    with pytest.raises(HandlerError, match="pt2: must be a mapping"):
        load_model(made)


def test_the_profiler_writes_a_trace(
    make_model: MakeModel,
    load_model: Load,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "TRUE")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    manifest = {"modelFile": "net.py"}
    served = load_model(make_model({"net.py": NET}, handler="base_handler", manifest=manifest))
    for _ in range(2):
        (answer,) = served.predict([ask(b"[1.0, 2.0]")])
        assert json.loads(bytes(answer.body)) == [2.0, 4.0]
    traces = list((tmp_path / "tmp" / "pytorch_profiler" / "digits").glob("*.pt.trace.json"))
    assert len(traces) == 2
    assert b"preprocess" in traces[0].read_bytes()


def test_the_config_asks_how_long_the_steps_take(
    make_model: MakeModel, load_model: Load, ask: Ask
) -> None:
    manifest, config = {"modelFile": "net.py"}, {"handler": {"profile": True}}
    files = {"net.py": NET}
    options = make_model(files, handler="base_handler", manifest=manifest, config=config)
    served = load_model(options)
    served.predict([ask(b"[1.0, 2.0]")])
    names = [one.name for one in served.drain_metrics()]
    steps = ("preprocess", "inference", "postprocess")
    assert names == [*(f"ts_handler_{step}" for step in steps), "HandlerTime"]
