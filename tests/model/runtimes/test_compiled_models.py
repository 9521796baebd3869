"""What `cuda:` asks of models that are not modules, from the config to the answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.archive.seal import Example

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.models import Ask, Load, MakeModel

torch = pytest.importorskip("torch")


def answers_of(model: Any, ask: Ask, *values: Any) -> list[Any]:
    answers = model.predict([ask(json.dumps(value).encode()) for value in values])
    return [json.loads(bytes(answer.body)) for answer in answers]


@pytest.mark.parametrize("file", ["dynamic.onnx", "pairs.onnx"])
def test_an_onnx_model_may_be_bound(open_saved: Any, ask: Ask, file: str) -> None:
    plain, bound = open_saved(file), open_saved(file, config={"cuda": {"ioBinding": True}})
    values = [1.0, 2.0], [2.0, 1.0], [0.5, 3.0]
    assert answers_of(bound, ask, *values) == answers_of(plain, ask, *values)


def test_an_exported_program_may_be_compiled(
    open_saved: Any, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path / "cache"))
    plain = open_saved("program.pt2")
    compiled = open_saved("program.pt2", config={"cuda": {"aotInductor": True}})
    values = [1.0, 2.0], [2.0, 1.0], [0.5, 3.0]
    assert answers_of(compiled, ask, *values) == answers_of(plain, ask, *values)
    assert list((tmp_path / "cache").rglob("*.pt2"))


def test_a_program_that_cannot_be_compiled_runs_as_it_is(
    open_saved: Any,
    ask: Ask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "cache").touch()
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path / "cache"))
    model = open_saved("program.pt2", config={"cuda": {"aotInductor": True}})
    assert answers_of(model, ask, [1.0, 2.0]) == answers_of(
        open_saved("program.pt2"), ask, [1.0, 2.0]
    )
    assert "cuda.aotInductor: failed, the model runs as it is" in caplog.text


NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0
        self.layer = torch.nn.Linear(2, 70)

    def forward(self, x):
        self.calls += 1
        return torch.relu(self.layer(x))
"""
HANDLER = """
from hatch_mar import handler_factory
from net import Net

handler = handler_factory(Net, lambda sample: torch.tensor(sample))
"""
EXAMPLE = Example(input="in.json", output="out.json", content_type="application/json").as_dict()


@pytest.fixture
def open_network(
    make_model: MakeModel, load_model: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Load a network that is compiled ahead of time, with or without an example."""
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path / "cache"))

    def open_it(*, examples: bool = True, **cuda: Any) -> Any:
        files = {
            "net.py": NET,
            "handler.py": "import torch\n" + HANDLER,
            "in.json": "[1.0, -2.0]",
        }
        model = load_model(
            make_model(
                files,
                handler="handler:handler",
                config={"cuda": {"aotInductor": True, **cuda}},
                batch_size=4,
                examples=[EXAMPLE] if examples else [],
            )
        )
        model.warm()
        return model

    return open_it


@pytest.mark.slow
@pytest.mark.parametrize("cuda", [{}, {"buckets": [2, 4]}, {"precision": "bfloat16"}])
def test_a_network_may_be_compiled_while_it_is_warmed(
    open_network: Any, ask: Ask, tmp_path: Path, cuda: dict[str, Any]
) -> None:
    model = open_network(**cuda)
    assert len(list((tmp_path / "cache").rglob("*.pt2"))) == 1
    network = model.context.forward.model
    before = network.calls
    values = [[1.0, 2.0], [0.5, -3.0], [2.0, 2.0]]
    answers = answers_of(model, ask, *values)
    assert network.calls == before, "an answer came from the model as it was"
    expected = network(torch.tensor(values))
    atol = 0.02 if cuda.get("precision") else 1e-5
    torch.testing.assert_close(torch.tensor(answers), expected, rtol=0.02, atol=atol)


@pytest.mark.slow
def test_another_shape_is_not_compiled_while_clients_wait(
    open_network: Any, ask: Ask, tmp_path: Path
) -> None:
    model = open_network()
    kept = list((tmp_path / "cache").rglob("*.pt2"))
    assert len(answers_of(model, ask, [[1.0, 2.0], [2.0, 1.0]])[0]) == 2
    assert list((tmp_path / "cache").rglob("*.pt2")) == kept


def test_without_an_example_nothing_is_compiled(
    open_network: Any, ask: Ask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = open_network(examples=False)
    assert "cuda.aotInductor: nothing was compiled" in caplog.text
    assert len(answers_of(model, ask, [1.0, 2.0])[0]) == 70
    assert not list((tmp_path / "cache").rglob("*.pt2"))
