"""Loading in a process of its own: what it changes there, and what it does not import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hatch_mar.model.loading import enter_model_directory

if TYPE_CHECKING:
    from tests.support.models import Load, MakeModel, RunPython

LOAD = """
import json, sys
from hatch_mar.model.loading import load
from hatch_mar.model.protocol import LoadOptions, Part, Request

directory, handler = sys.argv[1:]
options = LoadOptions(model_name="m", model_version="1", model_dir=directory, handler=handler)
model = load(options)
body = Part("body", "application/json", b"[1, 2]")
answer = model.predict([Request(id="r", headers=[], parts=[body])])[0]
heavy = ["torch", "numpy", "onnx", "onnxruntime", "PIL", "yaml", "pydantic", "hatchling"]
print(json.dumps({
    "status": answer.status,
    "body": json.loads(bytes(answer.body)),
    "heavy": [name for name in heavy if name in sys.modules],
}))
"""


def test_the_model_directory_is_where_the_handler_lives(
    model_dir: Path, run_python: RunPython
) -> None:
    (model_dir / "handler.py").write_text("""
import os
import sys
import helper

def handle(data, context):
    if data is None:
        return None
    return [[os.getcwd(), sys.path[0], helper.NAME, context.system_properties["model_dir"]]]
""")
    (model_dir / "helper.py").write_text("NAME = 'mine'\n")
    here = str(model_dir)
    answer = run_python(LOAD, here, "handler.py")
    assert answer["body"] == [here, here, "mine", here]


@pytest.mark.parametrize(
    "source",
    [
        "def handle(data, context):\n    return data and [row['body'] for row in data]\n",
        (
            "from base_handler import handler_factory\n"
            "handle = handler_factory(lambda: lambda sample: sample)\n"
        ),
        (
            "from ts.torch_handler.base_handler import BaseHandler\n"
            "class Mine(BaseHandler):\n"
            "    def initialize(self, context):\n        self.model = None\n"
            "    def preprocess(self, data):\n        return [row['body'] for row in data]\n"
            "    def inference(self, data):\n        return data\n"
            "    def postprocess(self, data):\n        return data\n"
        ),
    ],
    ids=["function", "factory", "class"],
)
def test_a_handler_that_needs_nothing_heavy_loads_nothing_heavy(
    model_dir: Path, run_python: RunPython, source: str
) -> None:
    (model_dir / "handler.py").write_text(source)
    answer = run_python(LOAD, str(model_dir), "handler.py")
    assert answer == {"status": 200, "body": [1, 2], "heavy": []}


def test_entering_twice_is_entering_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/somewhere"])
    monkeypatch.chdir(Path.cwd())
    enter_model_directory(str(tmp_path))
    enter_model_directory(str(tmp_path))
    assert sys.path == [str(tmp_path), "/somewhere"]
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize(
    ("option", "variable", "runs"), [(True, "", True), (False, "", False), (True, "0", False)]
)
def test_the_operator_can_forbid_install_hooks(
    make_model: MakeModel,
    load_model: Load,
    model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    option: bool,
    variable: str,
    runs: bool,
) -> None:
    source = """
from pathlib import Path
from base_handler import handler_factory

def install_packages():
    Path("installed").touch()

handle = handler_factory(lambda: (lambda sample: sample), install_packages=install_packages)
"""
    monkeypatch.setenv("HATCH_MAR_INSTALL_HOOKS", variable)
    load_model(make_model({"handler.py": source}, install_hooks=option))
    assert (model_dir / "installed").exists() == runs
