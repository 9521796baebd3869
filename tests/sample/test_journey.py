"""The sample, installed from its wheel and asked over HTTP, as the README tells it."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.builds import Environment, make_environment
from tests.support.exchange import Call, Reply, exchange
from tests.support.runner import Runner, start_runner

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE = Path(__file__).parents[2] / "sample_project"
IMAGES = sorted((SAMPLE / "images").glob("*.png"))
JSON = ("Content-Type", "application/json")


@pytest.fixture(scope="module")
def installed(
    tmp_path_factory: pytest.TempPathFactory, wheelhouse: Path, sample_wheel: Path
) -> Environment:
    """An environment with the sample's wheel."""
    environment = make_environment(tmp_path_factory.mktemp("installed") / "venv")
    environment.install(*wheelhouse.glob("*.whl"), sample_wheel)
    return environment


@pytest.fixture(scope="module")
def served(installed: Environment) -> Iterator[Runner]:
    """`serve-digits`, ready."""
    program = str(installed.program("serve-digits"))
    with start_runner(argv=[program]) as runner:
        assert runner.exited() is None, runner.output()
        yield runner


def ask(runner: Runner, body: bytes, *headers: tuple[str, str]) -> Reply:
    return exchange(
        runner.url, Call(method="PUT", path="/predictions/digits", headers=headers, body=body)
    )


def test_the_predictions_agree_with_the_true_labels(served: Runner) -> None:
    """Sent together, so that some of them are answered as one batch."""
    with ThreadPoolExecutor(16) as clients:
        replies = list(clients.map(lambda path: ask(served, path.read_bytes()), IMAGES))
    assert {reply.status for reply in replies} == {200}
    agreeing = [
        reply.json()["digit"] == int(path.name[0])
        for path, reply in zip(IMAGES, replies, strict=True)
    ]
    assert sum(agreeing) >= len(IMAGES) - 1


def test_a_picture_may_have_any_size(served: Runner) -> None:
    small = (SAMPLE / "images" / "7-0932.png").read_bytes()
    assert ask(served, small).json()["name"] == "seven"


def test_pixels_may_come_as_json(served: Runner) -> None:
    reply = ask(served, (SAMPLE / "examples" / "pixels.json").read_bytes(), JSON)
    golden = json.loads((SAMPLE / "examples" / "pixels.answer.json").read_text())
    answer = reply.json()
    assert answer == {**golden, "probability": pytest.approx(golden["probability"], rel=1e-3)}


def test_a_body_that_is_no_digit_is_refused_alone(served: Runner) -> None:
    with ThreadPoolExecutor(8) as clients:
        good = [clients.submit(ask, served, path.read_bytes()) for path in IMAGES[:7]]
        bad = clients.submit(ask, served, b"[[1, 2], [3, 4]]", JSON)
        assert {reply.result().status for reply in good} == {200}
        assert bad.result().json() == {
            "code": 503,
            "type": "InternalServerException",
            "message": "Prediction failed",
        }


def test_the_door_has_no_torch_and_the_worker_has(served: Runner) -> None:
    door = Path(f"/proc/{served.process.pid}")
    assert "libtorch" not in (door / "maps").read_text()
    workers = (door / "task" / door.name / "children").read_text().split()
    assert any("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in workers)


def test_the_package_can_be_run_as_a_module(installed: Environment) -> None:
    with start_runner(argv=[str(installed.python), "-m", "digits_mar"]) as runner:
        assert ask(runner, IMAGES[0].read_bytes()).status == 200
        assert runner.stop(signal.SIGTERM) == 0


def test_the_installed_model_is_served_by_its_name(installed: Environment) -> None:
    with start_runner("digits", python=str(installed.python)) as runner:
        assert ask(runner, IMAGES[0].read_bytes()).json()["digit"] == 0
