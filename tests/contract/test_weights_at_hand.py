"""Archives that only name their weights, in the real TorchServe with the files at hand, and here.

There the archive's own `base_handler.py` looks where `handler.model_path` says. Here the runner has
fetched them; both map the same safetensors.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from hatch_mar.archive.write import write_archive
from hatch_mar.project.planning import make_plan
from hatch_mar.project.read import read_spec
from tests.support.exchange import Call, exchange, is_close
from tests.support.runner import start_runner
from tests.support.torchserve import start_torchserve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.torchserve import TorchServeHome

HANDLER = """
import torch
from base_handler import handler_factory


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 3, bias=False)
        self.again = torch.nn.Linear(3, 3, bias=False)
        self.again.weight = self.first.weight
        self.last = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.last(self.again(self.first(x)))


handler = handler_factory(init_function=Tied)
"""
PYPROJECT = """
[project]
name = "{name}"
version = "1.0"
dependencies = ["hatch-mar[serve]", "torch"]

[tool.mar]
handler = "handler.py"
{weights}
archive.format = "{form}"
"""
INDEX = "model.safetensors.index.json"
ROWS = ([0.5, -1.0, 2.25], [-100.5, 1e-6, 42.125])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """Files of weights by name, and what the model answers."""

    directory: Path
    names: tuple[str, ...]
    expected: tuple[list[float], ...]


def make_weights(directory: Path) -> Shipped:
    """Write the weights in one file, and in two with their index; of tied ones there is one."""
    directory.mkdir()
    torch.manual_seed(3)
    first, last = torch.randn(3, 3), torch.nn.Linear(3, 2)
    shards = {
        "one.safetensors": {"first.weight": first},
        "two.safetensors": {"last.weight": last.weight.detach(), "last.bias": last.bias.detach()},
    }
    for name, tensors in shards.items():
        save_file(tensors, str(directory / name))
    whole = {key: value for tensors in shards.values() for key, value in tensors.items()}
    save_file(whole, str(directory / "whole.safetensors"))
    placed = {key: name for name, tensors in shards.items() for key in tensors}
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    with torch.inference_mode():
        answers = (last(torch.tensor(row) @ first.T @ first.T).tolist() for row in ROWS)
        return Shipped(
            directory=directory,
            names=("whole.safetensors", INDEX, *shards),
            expected=tuple(answers),
        )


def make_archive(
    root: Path, store: Path, form: str, *, weights: str = "", path: Path | None = None
) -> Path:
    """Build a project whose weights are in its table, or alone in its model-config.yaml."""
    root.mkdir()
    (root / "handler.py").write_text(HANDLER)
    text = PYPROJECT.format(name=root.name, form=form, weights=weights)
    (root / "pyproject.toml").write_text(text)
    if path is not None:
        config = {"handler": {"model_path": str(path)}}
        (root / "model-config.yaml").write_text(json.dumps(config))
    environ = {**os.environ, "HATCH_MAR_CACHE_DIR": str(root / "cache")}
    subprocess.run([sys.executable, "-m", "hatch_mar", "lock"], cwd=root, env=environ, check=True)
    plan = make_plan(read_spec(root, environ={}))
    write_archive(plan, store / plan.filename)
    return store / plan.filename


def refer(path: Path) -> str:
    return f'weights = "{path.as_uri()}"'


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    return make_weights(tmp_path_factory.mktemp("shipped") / "weights")


@pytest.fixture(scope="module")
def servers(
    shipped: Shipped, torchserve_home: TorchServeHome, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Serve the archives as they were built here; in TorchServe, the directories with the files."""
    root = tmp_path_factory.mktemp("at-hand")
    ours, theirs = root / "ours", root / "theirs"
    ours.mkdir()
    make_archive(root / "path", ours, "mar", path=shipped.directory / "whole.safetensors")
    whole, *shards = shipped.names
    named = make_archive(root / "named", ours, "dir", weights=refer(shipped.directory / whole))
    sharded = make_archive(root / "sharded", ours, "dir", weights=refer(shipped.directory / INDEX))
    shutil.copytree(ours, theirs)
    for archive, names in ((named, [whole]), (sharded, shards)):
        for name in names:
            (theirs / archive.name / name).symlink_to(shipped.directory / name)
    environ = {"HATCH_MAR_CACHE_DIR": str(root / "cache")}
    with ExitStack() as stack:
        other = stack.enter_context(start_torchserve(torchserve_home, theirs))
        runner = stack.enter_context(start_runner(*map(str, ours.iterdir()), env=environ))
        assert runner.exited() is None, runner.output()
        yield other.url, runner.url


@pytest.mark.parametrize("model", ["path", "named", "sharded"])
def test_the_same_answers(servers: tuple[str, str], shipped: Shipped, model: str) -> None:
    for row, expected in zip(ROWS, shipped.expected, strict=True):
        headers = [("Content-Type", "application/json")]
        call = Call(path=f"/predictions/{model}", headers=headers, body=json.dumps(row).encode())
        replies = [exchange(url, call) for url in servers]
        assert [reply.status for reply in replies] == [200, 200], replies
        assert all(is_close(reply.json(), expected, tolerance=1e-4) for reply in replies)
