"""The texts of a new project. What is written `$so` is filled in."""

from __future__ import annotations

FACTORY_HANDLER = '''\
"""How a request becomes a prediction.

`preprocess` and `postprocess` see one request each. `handler_factory` makes batches of what they
return, puts the network on its device and loads the weights into what `init_function` returns.
"""

from __future__ import annotations

import json

import torch
from hatch_mar import handler_factory

from $module import $network

$tensors

def preprocess(sample):
    """Return the network's input for one request, without a batch dimension: numbers from JSON."""
    if isinstance(sample, (bytes, bytearray, str)):  # the client did not say that it is JSON
        sample = json.loads(sample)
    return torch.as_tensor(sample, dtype=$dtype)


def postprocess(output):
    """Return what the client gets for one output: tensors become lists of JSON."""
    return output


handler = handler_factory(
    init_function=$network,
    preprocess_function=preprocess,
    postprocess_function=postprocess,
$arguments)
'''
MODULE_HANDLER = '''\
"""How a request becomes a prediction: `BaseHandler` loads the model, which is $kind."""

from __future__ import annotations

import json

import torch
from ts.torch_handler.base_handler import BaseHandler


class Handler(BaseHandler):
    """Numbers in, numbers out: `postprocess` is the place to give them a meaning."""

    def preprocess(self, data):
        """Return the requests as one batch: the numbers of each one's JSON, stacked."""
        return torch.tensor([read(row) for row in data], dtype=torch.float32, device=self.device)


def read(row):
    """Return what one request holds."""
    value = row.get("data", row.get("body"))
    if isinstance(value, (bytes, bytearray, str)):  # the client did not say that it is JSON
        value = json.loads(value)
    return value
'''
ONNX_HANDLER = '''\
"""How a request becomes a prediction: `BaseHandler` loads the ONNX model into a session.

$inputs
"""

from __future__ import annotations

import json

import numpy as np
from ts.torch_handler.base_handler import BaseHandler


class Handler(BaseHandler):
    """Numbers in, numbers out: `postprocess` is the place to give them a meaning."""

    def preprocess(self, data):
        """Return the requests as one batch per input of the model."""
        rows = [read(row) for row in data]
$feed

    def inference(self, data):
        """Return the model's first output."""
        return self.model.run(None, data)[0]

    def postprocess(self, data):
        """Return one answer per request."""
        return data.tolist()


def read(row):
    """Return what one request holds."""
    value = row.get("data", row.get("body"))
    if isinstance(value, (bytes, bytearray, str)):  # the client did not say that it is JSON
        value = json.loads(value)
    return value
'''
README = """\
# $name

```console
$$ pip install hatch hatch-mar
$$ hatch-mar check           # everything that can be proved without a build
$$ hatch build               # the wheel and the archive, in dist/
$$ pip install dist/*.whl
$$ serve-$name
```

`handler.py` says how a request becomes a prediction$example

`pyproject.toml` says what goes into the archive. To hold the model to its answers, put a request
and the answer that you expect into `examples/` and name both in `[tool.mar]`: a server that gets
another answer does not call itself ready.
"""
COLOURS_EXAMPLE = """, and `model.py` is the network:

```console
$$ curl -H 'Content-Type: application/json' -d '[255, 128, 0]' localhost:8080/predictions/$name
$answer
```

It names colours, with weights that nobody had to train: put your own model in its place."""
IGNORED = """\
__pycache__/
*.egg-info/
.pytest_cache/
.venv/
dist/
"""
COLOURS_MODEL = '''\
"""The network."""

from __future__ import annotations

import torch
from torch import nn


class Palette(nn.Module):
    """Scores a colour against some that it knows: the nearer, the higher."""

    def __init__(self, colours: int) -> None:
        super().__init__()
        self.nearness = nn.Linear(3, colours)

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """Return the scores, (batch, colours), of red, green and blue in 0..1, (batch, 3)."""
        return self.nearness(rgb)
'''
COLOURS_HANDLER = '''\
"""How a request becomes a prediction.

`preprocess` and `postprocess` see one request each. `handler_factory` makes batches of what they
return, puts the network on its device and loads the weights into what `init_function` returns.
"""

from __future__ import annotations

import torch
from hatch_mar import handler_factory

from model import Palette

NAMES = (
$names
)


def preprocess(sample: list[float] | str) -> torch.Tensor:
    """Return the network's input for `[255, 128, 0]` or `"#ff8000"`."""
    if isinstance(sample, str):
        sample = list(bytes.fromhex(sample.strip().lstrip("#")))
    return torch.tensor(sample, dtype=torch.float32) / 255


def postprocess(scores: torch.Tensor) -> dict[str, str | float]:
    """Return the likeliest name, and how likely it is."""
    probabilities = scores.softmax(0)
    best = int(probabilities.argmax())
    return {"colour": NAMES[best], "probability": round(float(probabilities[best]), 4)}


handler = handler_factory(
    init_function=Palette,
    preprocess_function=preprocess,
    postprocess_function=postprocess,
    colours=len(NAMES),
)
'''
COLOURS_TEST = '''\
"""The handler, asked as a server asks it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from handler import handler

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Tell the handler, as a server does, where the model is and what its weights are called."""
    context = SimpleNamespace(
        system_properties={"model_dir": str(ROOT)},
        manifest={"model": {"serializedFile": "$weights"}},
        model_yaml_config={},
    )
    handler(None, context)


def test_the_example_gets_its_answer() -> None:
    request = json.loads((ROOT / "$question").read_text())
    expected = json.loads((ROOT / "$answer").read_text())
    (answer,) = handler([{"body": request}])
    assert answer["colour"] == expected["colour"]
    assert answer["probability"] == pytest.approx(expected["probability"], rel=1e-3)


def test_each_request_of_a_batch_gets_its_own() -> None:
    answers = handler([{"body": [255, 0, 0]}, {"body": "#0000ff"}])
    assert [answer["colour"] for answer in answers] == ["red", "blue"]
'''
COLOURS_TAIL = """\
[dependency-groups]
test = ["pytest"]

[tool.pytest.ini_options]
pythonpath = ["."]
"""
