"""The flowchart of how a model is loaded, row by row."""

from __future__ import annotations

import pytest

from hatch_mar.project.runtime import ROWS
from hatch_mar.weights.lockfile import LockedFile
from tests.project.scratch import FACTORY_HANDLER, FUNCTION_HANDLER, INHERITING_HANDLER, Scratch

OWN = "class H:\n    def initialize(self, context): ...\n    def handle(self, data, context): ...\n"
UNKNOWN = "from mine import Base\n\n\nclass H(Base): ...\n"


def load(
    scratch: Scratch, handler: str, weights: str, *, model_file: bool, extra: str = ""
) -> None:
    files: dict[str, str | bytes] = {"handler.py": handler, "model.py": "class Net: ...\n"}
    if weights:
        files[weights] = b"1"
    scratch.write(files)
    lines = [f'weights = "{weights}"' if weights else "", extra]
    scratch.configure("\n".join([*lines, 'model-file = "model.py"' if model_file else ""]))


@pytest.mark.parametrize(
    ("weights", "model_file", "runtime"),
    [
        (f"w{suffix}" if suffix else "", row.model_file, row.runtime)
        for row in ROWS
        for suffix in row.suffixes
    ],
)
def test_every_row_for_an_inherited_initialize(
    scratch: Scratch, weights: str, *, model_file: bool, runtime: str
) -> None:
    load(scratch, INHERITING_HANDLER, weights, model_file=model_file)
    spec = scratch.spec()
    assert spec.runtime == runtime
    assert "BaseHandler" in spec.runtime_reason


@pytest.mark.parametrize(
    ("handler", "weights", "runtime"),
    [
        (OWN, "w.pt", "custom"),
        (OWN, "", "custom"),
        (FUNCTION_HANDLER, "w.onnx", "custom"),
        (FACTORY_HANDLER, "w.pth", "eager"),
        (FACTORY_HANDLER, "", "eager"),
        (UNKNOWN, "w.onnx", "onnx"),
        (UNKNOWN, "", "custom"),
        (UNKNOWN, "w.gguf", "custom"),
    ],
)
def test_other_handlers(scratch: Scratch, handler: str, weights: str, runtime: str) -> None:
    load(scratch, handler, weights, model_file=False)
    assert scratch.spec().runtime == runtime


@pytest.mark.parametrize(
    ("weights", "model_file", "problem"),
    [
        ("", False, "weights: is required, because the handler leaves loading to BaseHandler"),
        ("w.pth", False, "model-file: is required: 'w.pth' holds weights alone"),
        ("w.safetensors", False, "model-file: is required"),
        ("w.onnx", True, "model-file: has no use beside 'w.onnx'"),
        ("w.onx", False, "runtime: is required: nothing says how to load 'w.onx'; did you mean"),
    ],
)
def test_no_row_says_what_is_missing(
    scratch: Scratch, weights: str, *, model_file: bool, problem: str
) -> None:
    load(scratch, INHERITING_HANDLER, weights, model_file=model_file)
    assert f"pyproject.toml: tool.mar.{problem}" in scratch.problem()


@pytest.mark.parametrize(
    ("runtime", "weights", "model_file"),
    [
        ("tensorrt", "w.pt", False),
        ("torchscript", "w.pt", False),
        ("aoti", "w.pt2", False),
        ("eager", "w.bin", True),
        ("custom", "w.gguf", False),
    ],
)
def test_the_author_may_say_which(
    scratch: Scratch, runtime: str, weights: str, *, model_file: bool
) -> None:
    extra = f'runtime = "{runtime}"'
    load(scratch, INHERITING_HANDLER, weights, model_file=model_file, extra=extra)
    assert scratch.plan().runtime == runtime


@pytest.mark.parametrize(
    ("runtime", "weights", "model_file", "message"),
    [
        ("eager", "w.pt", False, "'eager' needs `model-file`, the architecture"),
        ("onnx", "w.pt", False, "'onnx' needs weights ending in .onnx, not 'w.pt'"),
        ("onnx", "", False, "'onnx' needs weights ending in .onnx, and there are none"),
        ("torchscript", "w.pt", True, "'torchscript' has no use for `model-file`; remove one"),
    ],
)
def test_but_not_against_the_files(
    scratch: Scratch, runtime: str, weights: str, *, model_file: bool, message: str
) -> None:
    extra = f'runtime = "{runtime}"'
    load(scratch, INHERITING_HANDLER, weights, model_file=model_file, extra=extra)
    assert scratch.problem() == f"pyproject.toml: tool.mar.runtime: {message}"


def test_a_model_path_in_the_config_counts_as_weights(scratch: Scratch) -> None:
    load(scratch, INHERITING_HANDLER, "", model_file=False)
    path = "/models/big.onnx"
    scratch.write({"model-config.yaml": f"handler:\n  model_path: {path}\n"})
    scratch.lock(LockedFile(target="big.onnx", source=path, resolved=path, size=1, sha256="0" * 64))
    assert scratch.spec().runtime == "onnx"


def test_a_directory_of_weights_is_the_operators_business(scratch: Scratch) -> None:
    scratch.write({"model-config.yaml": "handler:\n  model_path: /models/llama-3.1\n"})
    spec = scratch.spec()
    (note,) = spec.notes
    assert note.startswith("handler.model_path: nobody checks '/models/llama-3.1'")
    assert spec.weights == ()
