"""The model file, as stock TorchServe wants it: one class, called without arguments."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from tests.project.scratch import INHERITING_HANDLER, Scratch

if TYPE_CHECKING:
    from pathlib import Path

MODEL = """\
class Block:
    pass


class Net:
    def __init__(self, width=1, names=()):
        self.width, self.names = width, names
"""


@pytest.fixture
def eager(scratch: Scratch) -> Scratch:
    scratch.write({"handler.py": INHERITING_HANDLER, "net/model.py": MODEL, "w.pt": b"1"})
    return scratch


def test_a_file_with_one_class_is_the_model_file(eager: Scratch) -> None:
    eager.write({"net/model.py": "class Net: ...\n"})
    eager.configure('model-file = "net/model.py"\nweights = "w.pt"')
    plan = eager.plan()
    assert (plan.manifest.model_file, plan.runtime) == ("model.py", "eager")
    assert "hatch_mar_model.py" not in eager.members()


def test_several_classes_and_arguments_become_one_class_without(
    eager: Scratch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager.configure(
        """\
        model-file = "net/model.py"
        model-class = "Net"
        model-args = { width = 3, names = ["a", { b = 1.5 }] }
        weights = "w.pt"
        """
    )
    assert eager.plan().manifest.model_file == "hatch_mar_model.py"
    for name in ("model.py", "hatch_mar_model.py"):
        (tmp_path / name).write_bytes(eager.content(name))
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        made = importlib.import_module("hatch_mar_model").Model()
    finally:
        sys.modules.pop("hatch_mar_model", None)
        sys.modules.pop("model", None)
    assert (made.width, made.names) == (3, ["a", {"b": 1.5}])


@pytest.mark.parametrize(
    ("mar", "problem"),
    [
        (
            'model-file = "net/model.py"',
            "model-file: net/model.py has 2 classes (Block, Net); say which with `model-class`",
        ),
        (
            'model-file = "net/model.py"\nmodel-class = "Nett"',
            "model-class: net/model.py has no class 'Nett'; did you mean 'Net'?",
        ),
        (
            'model-file = "net/modle.py"',
            "model-file: 'net/modle.py' does not exist; did you mean 'net/model.py'?",
        ),
        ('model-file = "w.pt"', "model-file: 'w.pt' is not a Python file"),
        ('model-file = "net"', "model-file: 'net' is a directory, not a file"),
        (
            'model-file = "net/model.py"\nmodel-class = "Net"\nmodel-args = { width = nan }',
            "model-args.width: nan is no string, finite number, boolean, array or table",
        ),
        (
            'model-file = "net/model.py"\nmodel-class = "Net"\nmodel-args = { in-dim = 1 }',
            "model-args.in-dim: is no name of a Python argument",
        ),
    ],
)
def test_a_model_file_that_does_not_fit(eager: Scratch, mar: str, problem: str) -> None:
    eager.configure(f'{mar}\n[tool.mar.weights]\nsource = "w.pt"')
    assert eager.problem() == f"pyproject.toml: tool.mar.{problem}"


def test_a_model_file_without_a_class(eager: Scratch) -> None:
    eager.write({"net/model.py": "X = 1\n"})
    eager.configure('model-file = "net/model.py"\nweights = "w.pt"')
    assert eager.problem().endswith("net/model.py has no class")


@pytest.mark.parametrize("key", ['model-class = "Net"', "model-args = { width = 1 }"])
def test_a_class_or_arguments_without_a_file(scratch: Scratch, key: str) -> None:
    scratch.configure(key)
    assert "needs `model-file`" in scratch.problem()
