"""Three projects written for `handler_factory`: built, then served here and by the real TorchServe.

They are the examples from which the factory was specified, as their authors wrote them. A package
of the same shape stands in for torchvision, programs on PATH for what would go to the network.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import torch

from tests.support.builds import PROJECTS, copy_project, only, run
from tests.support.exchange import Call, exchange, is_close
from tests.support.runner import start_runner
from tests.support.torchserve import start_torchserve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.builds import Environment
    from tests.support.torchserve import TorchServeHome

NAMES = ("network", "resnet", "hooks")
STAND_INS = {
    "wget": 'echo "archive" > "${1##*/}"',
    "unzip": 'test -s "$1"',
    "git": (
        'mkdir project && printf \'#!/bin/sh\\necho build >> "%s"\\n\' "$CALLS" '
        "> project/build.sh && chmod +x project/build.sh"
    ),
}
"""What the install hooks call, doing no more than leaving files in the model directory."""
HOOKS_RUN = ["git", "build", "wget", "unzip"]
"""`install_packages`, then `unpack_dependencies`."""


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory,
    serving_env: Environment,
    build_environ: dict[str, str],
) -> Path:
    """Build the projects with the hook; return the directory of their archives."""
    root = tmp_path_factory.mktemp("factory")
    for name in NAMES:
        project = copy_project(PROJECTS / "factory" / name, root / name)
        if name != "network":
            shutil.copytree(PROJECTS / "factory" / "torchvision", project / "torchvision")
        run(sys.executable, "train.py", cwd=project)
        build = ("-m", "hatchling", "build", "-t", "mar", "-d", root / "store")
        run(serving_env.python, *build, cwd=project, env=build_environ)
    return root / "store"


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put the stand-ins first on PATH; return the file where each call leaves its name."""
    root = tmp_path_factory.mktemp("stand-ins")
    programs = root / "bin"
    programs.mkdir()
    for name, script in STAND_INS.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\necho {name} >> "$CALLS"\n{script}\n')
        program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALLS", str(root / "calls"))
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        yield root / "calls"


def ask_about(image: bytes, model: str) -> Call:
    headers = [("Content-Type", "image/png")]
    return Call(path=f"/predictions/{model}", headers=headers, body=image)


def ask_network(values: list[float]) -> Call:
    headers = [("Content-Type", "application/json")]
    return Call(path="/predictions/network", headers=headers, body=json.dumps(values).encode())


@pytest.fixture(scope="module")
def servers(store: Path, calls: Path, torchserve_home: TorchServeHome) -> Iterator[tuple[str, str]]:
    """Serve them: TorchServe with one worker each, then ours with two, each in fresh directories.

    What the hooks did is looked at in between.
    """
    with ExitStack() as stack:
        theirs = stack.enter_context(
            start_torchserve(torchserve_home, store, on_start=lambda: calls.write_text(""))
        )
        assert calls.read_text().split() == HOOKS_RUN
        calls.write_text("")
        archives = (str(only(store, f"{name}*")) for name in NAMES)
        ours = stack.enter_context(start_runner(*archives, "--workers", "2"))
        assert ours.exited() is None, ours.output()
        assert calls.read_text().split() == HOOKS_RUN, "two workers share the work of one"
        yield theirs.url, ours.url


@pytest.mark.parametrize("model", ["resnet", "hooks"])
def test_pictures(servers: tuple[str, str], request: pytest.FixtureRequest, model: str) -> None:
    images = sorted((request.config.rootpath / "sample_project" / "images").glob("*.png"))[:4]
    for image in images:
        call = ask_about(image.read_bytes(), model)
        theirs, ours = (exchange(url, call) for url in servers)
        assert (theirs.status, ours.status) == (200, 200), (theirs, ours)
        assert [type(part) for part in theirs.json()] == [float, int, str]
        assert is_close(ours.json(), theirs.json())


def test_numbers_in_a_full_batch(servers: tuple[str, str], store: Path) -> None:
    """Four fill a batch, so nobody waits out its delay of four seconds."""
    rows = [[1.5, 2.5, 3.5, 4.5], [-1.0, 0.5, 0.0, 9.5], [0.25] * 4, [7.0, -7.5, 7.0, -7.5]]
    answers = []
    for url in servers:
        with ThreadPoolExecutor(4) as clients:
            replies = list(clients.map(lambda row, to=url: exchange(to, ask_network(row)), rows))
        assert [reply.status for reply in replies] == [200] * 4, replies
        answers.append([reply.json() for reply in replies])
    theirs, ours = answers
    assert is_close(ours, theirs)
    assert is_close(ours, expected_of_network(store.parent / "network" / "checkpoint.pth", rows))


def expected_of_network(checkpoint: Path, rows: list[list[float]]) -> list[list[float]]:
    """Return what the network says, computed by hand from its weights."""
    state = torch.load(checkpoint)
    x = torch.tensor(rows)
    for layer in ("layer0.lin", "layer1.lin"):
        x = torch.relu(x @ state[f"{layer}.weight"].T + state[f"{layer}.bias"])
    x = x @ state["output_proj.weight"].T + state["output_proj.bias"]
    answers: list[list[float]] = x.tolist()
    return answers
