"""What `check` says about stock TorchServe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.project.scratch import FUNCTION_HANDLER, INHERITING_HANDLER

if TYPE_CHECKING:
    from tests.project.scratch import Scratch

INFERENCE = "    def inference(self, data): ...\n"


@pytest.mark.parametrize(
    ("handler", "weights", "note"),
    [
        (INHERITING_HANDLER, "w.onnx", "loads ONNX but cannot run it"),
        (INHERITING_HANDLER, "w.pt2", "loads no exported programs"),
        (INHERITING_HANDLER + INFERENCE, "w.onnx", None),
        (INHERITING_HANDLER, "w.pt", None),
        (FUNCTION_HANDLER, "w.onnx", None),
    ],
)
def test_models_that_base_handler_cannot_run_there(
    scratch: Scratch, handler: str, weights: str, note: str | None
) -> None:
    scratch.write({"handler.py": handler, weights: b"1"})
    scratch.configure(f'weights = "{weights}"')
    notes = scratch.spec().notes
    assert [note in text for text in notes if note] == ([True] if note else [])
    assert len(notes) == (note is not None)


def test_safetensors_need_a_handler_of_ones_own_there(scratch: Scratch) -> None:
    scratch.write({"handler.py": INHERITING_HANDLER, "m.py": "class N: ...\n"})
    scratch.write({"w.safetensors": b"1"})
    scratch.configure('weights = "w.safetensors"\nmodel-file = "m.py"')
    assert scratch.spec().notes == ("w.safetensors: TorchServe's BaseHandler reads no safetensors",)


def test_references_are_not_fetched_there(scratch: Scratch) -> None:
    digest = "0" * 64
    scratch.configure(f'weights = {{ source = "https://b/w.pt", sha256 = "{digest}" }}')
    assert scratch.spec().stock[0].startswith("w.pt: TorchServe downloads nothing")
