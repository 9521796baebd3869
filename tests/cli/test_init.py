"""`hatch-mar init`: what it makes builds and serves at once."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

from hatch_mar.archive.write import write_archive
from hatch_mar.cli.authored import read_project
from hatch_mar.cli.init import command
from hatch_mar.project.planning import make_plan
from tests.support.builds import Environment, only, run
from tests.support.exchange import Call, exchange
from tests.support.runner import start_runner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODEL = """\
import torch
from parts import Scale

class Line(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = Scale(width, 1)

    def forward(self, x):
        return self.scale(x)
"""
PARTS = "from torch import nn\n\nclass Scale(nn.Linear): pass\n"
STATE = {"scale.weight": torch.tensor([[1.0, 10.0]]), "scale.bias": torch.tensor([100.0])}


class Line(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Linear(2, 1)
        self.load_state_dict(STATE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale(x)


def save_script(path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.script(Line()).save(str(path))


def save_exported(path: Path) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(Line(), (torch.ones(2, 2),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)


def save_onnx(path: Path) -> None:
    tensors = {"w": ([2, 1], [1.0, 10.0]), "b": ([1], [100.0])}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["pixels", "w"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["y"]),
        ],
        "line",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor(name, TensorProto.FLOAT, *each) for name, each in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)


NETWORK = ("--model-file", "model.py", "--model-arg", "width=2")
CHECKPOINTS: dict[str, tuple[str, Callable[[Path], Any], tuple[str, ...]]] = {
    "state_dict": ("best.pt", lambda path: torch.save(STATE, path), NETWORK),
    "legacy": (
        "best.model",
        lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
        NETWORK,
    ),
    "safetensors": ("x.bin", lambda path: safetensors.torch.save_file(STATE, path), NETWORK),
    "torchscript": ("best.pth", save_script, ()),
    "exported": ("best.pt2", save_exported, ()),
    "onnx": ("best.onnx", save_onnx, ()),
}


def init(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def lines(result: Result) -> list[str]:
    assert result.exit_code != 0
    problems = getattr(result.exception, "problems", ())
    return [str(problem) for problem in problems] or result.output.splitlines()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "parts.py").write_text(PARTS)


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_every_kind_of_checkpoint_is_served(tmp_path: Path, kind: str) -> None:
    name, save, options = CHECKPOINTS[kind]
    save(tmp_path / name)
    result = init("line", "--weights", name, *options)
    assert result.exit_code == 0, result.output or result.exception
    archive = tmp_path / "line.mar"
    write_archive(make_plan(read_project(tmp_path / "line")), archive)
    with start_runner(str(archive)) as runner:
        assert runner.exited() is None, runner.output()
        for headers in ([("Content-Type", "application/json")], []):
            question = Call(path="/predictions/line", headers=headers, body=b"[1.0, 2.0]")
            assert exchange(runner.url, question).json() == [121.0]


def test_from_nothing_to_an_answer(
    tmp_path: Path, serving_env: Environment, build_environ: dict[str, str]
) -> None:
    run(serving_env.program("hatch-mar"), "init", "hue", cwd=tmp_path)
    project, dist = tmp_path / "hue", tmp_path / "dist"
    build = (
        serving_env.python,
        "-m",
        "hatchling",
        "build",
        "-d",
        dist,
        "-t",
        "sdist",
        "-t",
        "wheel",
    )
    run(*build, cwd=project, env=build_environ)
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project)
    with start_runner(str(only(dist, "*.whl")), python=str(serving_env.python)) as runner:
        assert runner.exited() is None, runner.output()
        question = Call(
            path="/predictions/hue",
            headers=[("Content-Type", "application/json")],
            body=b"[255, 128, 0]",
        )
        answer = exchange(runner.url, question).json()
    assert answer == json.loads((project / "examples" / "orange.answer.json").read_text())
    assert answer["colour"] == "orange"


def test_nothing_is_overwritten_and_every_conflict_named(tmp_path: Path) -> None:
    assert init("hue").exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = [line.partition(":")[0] for line in lines(init("hue"))]
    assert found == [
        "hue/pyproject.toml",
        "hue/handler.py",
        "hue/model.py",
        "hue/weights/colours.safetensors",
        "hue/examples/orange.json",
        "hue/examples/orange.answer.json",
        "hue/tests/test_handler.py",
    ]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_readme_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert init("hue", "--directory", "new").exit_code == 0
    (tmp_path / "model.py").unlink()
    assert init("hue", "--directory", ".").exit_code == 0
    assert (tmp_path / "README.md").read_text() == "mine"


def test_weights_in_the_project_stay_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    torch.save(STATE, tmp_path / "runs" / "best.pt")
    result = init("line", "--directory", ".", "--weights", "runs/best.pt", *NETWORK)
    assert result.exit_code == 0, result.exception
    assert 'weights = "runs/best.pt"' in (tmp_path / "pyproject.toml").read_text()
    assert not (tmp_path / "weights").exists()


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "best.pt")
    (problem,) = lines(init("line", "--weights", "best.pt"))
    assert problem == (
        "--model-file: is required: 'best.pt' holds weights alone (scale.weight 1x2, scale.bias 1)"
        ", and not the network they are of"
    )
    assert not (tmp_path / "line").exists()


def test_a_whole_model_needs_no_network(tmp_path: Path) -> None:
    save_onnx(tmp_path / "best.onnx")
    (problem,) = lines(init("line", "--weights", "best.onnx", *NETWORK))
    assert problem.startswith("--model-file: has no use beside 'best.onnx', which is ONNX")


def test_everything_that_is_wrong_at_once(tmp_path: Path) -> None:
    torch.save(Line(), tmp_path / "best.pt")
    found = lines(init("5 lines", "--weights", "best.pt", "--model-file", "model.py"))
    assert [line.partition(":")[0] for line in found] == ["NAME", "--weights", "--model-arg"]
    assert found[2].endswith("add --model-arg width=VALUE")


def test_an_argument_that_the_network_does_not_take() -> None:
    arguments = ("line", "--model-file", "model.py", "--model-arg", "widht=2")
    assert "--model-arg: Line takes no 'widht'; did you mean 'width'?" in lines(init(*arguments))


def test_a_network_of_several_has_to_be_named(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        f"{MODEL}\nclass Other(Line): pass\nclass More(Line): pass\n"
    )
    (problem,) = lines(init("line", "--model-file", "model.py"))
    assert problem == "--model-class: 'model.py' has 2 networks (Other, More); name one"


def test_a_handler_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def answer(data, context):\n    return data\n")
    assert init("x", "--handler", "mine.py:answer").exit_code == 0
    assert 'handler = "mine.py:answer"' in (tmp_path / "x" / "pyproject.toml").read_text()


def test_a_handler_that_cannot_be_one_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    assert "mine.py has no class" in lines(init("x", "--handler", "mine.py"))[0]
    assert not (tmp_path / "x").exists()


def test_a_default_handler_gets_the_class_it_asks_for(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "best.pt")
    result = init("line", "--handler", "base_handler", "--weights", "best.pt", *NETWORK)
    assert result.exit_code == 0, result.exception
    spec = read_project(tmp_path / "line")
    assert (spec.runtime, spec.handler.manifest) == ("eager", "base_handler")


def test_an_unknown_handler_is_guessed_at() -> None:
    assert "did you mean 'image_classifier'?" in init("x", "--handler", "image_clasifier").output


def test_json() -> None:
    made = json.loads(init("hue", "--json").output)
    assert made["directory"] == "hue"
    assert "handler.py" in made["files"]
    again = init("hue", "--json")
    assert again.exit_code == 2
    assert json.loads(again.output)["problems"][0]["file"] == "hue/pyproject.toml"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pt")
    result = CliRunner().invoke(command, ["demo", "--weights", str(tmp_path / "w.pt")])
    assert result.exit_code == 2
    assert "is not a file but a device or a pipe" in result.output
