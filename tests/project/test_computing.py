"""Keys of `cuda` that the model's runtime passes over are found in a build."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.cudakeys import CUDA_KEYS
from hatch_mar.project.computing import TAKERS

if TYPE_CHECKING:
    from tests.project.scratch import Scratch

BASE = 'handler = "base_handler"\n'


@pytest.mark.parametrize(
    ("weights", "said", "runtime", "takers"),
    [
        ("w.onnx", "precision: bfloat16", "onnx", "'eager', 'torchscript' or 'exported'"),
        ("w.pt", "tensorrt: true", "torchscript", "'onnx'"),
        ("w.so", "channelsLast: true", "aoti", "'eager', 'torchscript' or 'exported'"),
    ],
)
def test_a_key_that_does_nothing_is_refused(
    scratch: Scratch, weights: str, said: str, runtime: str, takers: str
) -> None:
    scratch.write({weights: "w", "model-config.yaml": f"cuda: {{{said}}}\n"})
    scratch.configure(f'{BASE}weights = "{weights}"')
    key = said.partition(":")[0]
    assert scratch.problem() == (
        f"model-config.yaml: cuda.{key}: does nothing with the runtime '{runtime}', "
        f"only with {takers}; remove it"
    )


def test_it_is_found_where_it_is_written(scratch: Scratch) -> None:
    scratch.write({"w.onnx": "w"})
    scratch.configure(f'{BASE}weights = "w.onnx"\nserve.cuda.channels-last = true')
    assert "tool.mar.serve.cuda.channels-last: does nothing with" in scratch.problem()


@pytest.mark.parametrize(
    ("weights", "section"),
    [
        ("w.onnx", "{precision: float32, tensorrt: true}"),
        ("w.onnx", "{graphs: false, pipeline: true}"),
        ("w.pt2", "{precision: float16, aotInductor: true, graphs: true}"),
    ],
)
def test_others_are_left_alone(scratch: Scratch, weights: str, section: str) -> None:
    scratch.write({weights: "w", "model-config.yaml": f"cuda: {section}\n"})
    scratch.configure(f'{BASE}weights = "{weights}"')
    assert scratch.spec().config["cuda"]


def test_who_loads_a_model_itself_knows_best(scratch: Scratch) -> None:
    scratch.write({"model-config.yaml": "cuda: {precision: float16, tensorrt: true}\n"})
    scratch.configure("")
    assert scratch.spec().runtime == "custom"


def test_every_key_is_a_key() -> None:
    assert set(TAKERS) <= {key.name for key in CUDA_KEYS}
