"""What the sample project says of itself is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tests.support.builds import copy_project

SAMPLE = Path(__file__).parents[2] / "sample_project"
IMAGES = sorted((SAMPLE / "images").glob("*.png"))


def test_there_are_images_of_every_digit_to_try() -> None:
    assert len(IMAGES) >= 20
    assert {path.name[0] for path in IMAGES} == set("0123456789")


def test_the_images_are_held_out_and_labelled_as_the_data_set_says() -> None:
    pixels, digits = load_digits(return_X_y=True)
    _, held_out = train_test_split(
        range(len(digits)), test_size=0.2, random_state=20, stratify=digits
    )
    for path in IMAGES:
        label, index = (int(part) for part in path.stem.split("-"))
        assert index in held_out
        assert digits[index] == label
        with Image.open(path) as image:
            small = image.resize((8, 8), Image.Resampling.BOX).tobytes()
        assert [round(value * 16 / 255) for value in small] == pixels[index].astype(int).tolist()


def test_the_weights_are_small_and_hold_nothing_but_tensors() -> None:
    weights = SAMPLE / "weights" / "digits.pt"
    assert weights.stat().st_size < 1_000_000
    code = "import sys, torch; print(len(torch.load(sys.argv[1], weights_only=True)))"
    assert int(run_python("-c", code, str(weights))) > 0


def test_the_handler_works_outside_an_archive(tmp_path: Path) -> None:
    """As in an editor or a unit test of its author: there is no `base_handler` to import."""
    code = """
import json, sys, torch
import handler
from pathlib import Path
from PIL import Image
network = handler.init_function(width=32).eval()
network.load_state_dict(torch.load("weights/digits.pt", weights_only=True))
for name in ("seven", "four"):
    inputs = handler.preprocess(Image.open(f"examples/{name}.png"))
    with torch.inference_mode():
        print(json.dumps(handler.postprocess(network(inputs.unsqueeze(0)))))
"""
    project = copy_project(SAMPLE, tmp_path / "project")
    answers = [json.loads(line) for line in run_python("-c", code, cwd=project).splitlines()]
    expected = [
        json.loads((SAMPLE / "examples" / f"{name}.json").read_text()) for name in ("seven", "four")
    ]
    assert [answer["digit"] for answer in answers] == [7, 4]
    for answer, golden in zip(answers, expected, strict=True):
        assert answer == {**golden, "probability": pytest.approx(golden["probability"], rel=1e-3)}


@pytest.mark.parametrize("pixels", ["[[1, 2], [3, 4]]", "'seven'", "[[0] * 8] * 7 + [[0] * 7]"])
def test_pixels_of_another_shape_are_refused(pixels: str) -> None:
    code = f"""
from digits_net.transforms.pixels import read_pixels
try:
    read_pixels({pixels})
except ValueError as error:
    print(error)
"""
    assert "expected" in run_python("-c", code, cwd=SAMPLE)


@pytest.mark.slow
def test_training_reaches_the_accuracy_that_the_readme_claims(tmp_path: Path) -> None:
    project = copy_project(SAMPLE, tmp_path / "project")
    said = run_python("train.py", cwd=project)
    assert float(said.rpartition(": ")[2].strip().removesuffix("%")) >= 98
    trained = {path.name for path in (project / "images").iterdir()}
    assert trained == {path.name for path in IMAGES}


def run_python(*arguments: str, cwd: Path = SAMPLE) -> str:
    """Run this Python in the sample's directory, as its author would, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-B", *arguments],
        cwd=cwd,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SAMPLE.parent)},  # hatch-mar itself
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout
