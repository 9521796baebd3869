"""Handlers as TorchServe's users write them, unmodified on both servers."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.support.exchange import Call, Pair, exchange, is_close
from tests.support.images import make_image
from tests.support.models import make_network
from tests.support.torchserve import WORK, TorchServeHome, install_torchserve

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
CONFIG = "model-config.yaml"
JSON = ("Content-Type", "application/json")
SCORES = {"base_abc", "base_only", "micro"}
"""Projects around the network of the project `eager`."""
IMAGES = {"classifier", "top_three"}
"""Those around the one of the default image classifier."""


@pytest.fixture(scope="module")
def torchserve_home() -> TorchServeHome:
    """TorchServe with what its image handlers import."""
    return install_torchserve(WORK, vision=True)


@pytest.fixture(scope="module")
def store(
    torchserve_home: TorchServeHome, handlers: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    store, files = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("files")
    for project in sorted((handlers / "users").iterdir()):
        told: dict[str, Any] = {}
        if project.name in SCORES | IMAGES:
            model_file = handlers / "eager" / "model.py"
            if project.name in IMAGES:
                model_file = handlers / "defaults" / "classifier.py"
            told["model_file"] = model_file
            told["weights"] = files / f"{project.name}.pt"
            torch.save(make_network(model_file).state_dict(), told["weights"])
        extra = [path for path in project.iterdir() if path.name not in {"handler.py", CONFIG}]
        if project.name == "base_abc":
            extra.append(handlers / "eager" / "index_to_name.json")
        if (project / CONFIG).exists():
            told["config"] = project / CONFIG
        handler = str(project / "handler.py")
        torchserve_home.make_archive(
            project.name, store, handler=handler, extra_files=extra, **told
        )
    return store


def ask(model: str, value: Any, verb: str = "predictions") -> Call:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    headers = [] if isinstance(value, bytes) else [JSON]
    return Call(path=f"/{verb}/{model}", headers=headers, body=body)


def assert_same(pair: Pair, call: Call) -> Any:
    theirs, ours = pair.answers(call)
    assert is_close(ours, theirs)
    return theirs


def assert_same_reply(pair: Pair, call: Call) -> dict[str, Any]:
    theirs, ours = (reply.comparable() for reply in pair.ask(call))
    assert ours == theirs
    return theirs


def image() -> bytes:
    buffer = io.BytesIO()
    make_image("RGB", (300, 200)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_plain_class(pair: Pair) -> None:
    assert assert_same(pair, ask("plain_class", [1])) == {
        "model": "plain_class",
        "batch": 1,
        "gpu": None,
        "rows": ["body"],
    }


@pytest.mark.parametrize("body", [b"world", "world", 5])
def test_a_function(pair: Pair, body: Any) -> None:
    assert assert_same_reply(pair, ask("module_function", body))["status"] == 200


def test_a_subclass_of_base_handler_and_abc(pair: Pair) -> None:
    answer = assert_same(pair, ask("base_abc", [1, -2, 3.5]))
    assert answer["config"] == {"profile": True, "threshold": 0.25}


def test_its_own_explanation(pair: Pair) -> None:
    answer = assert_same(pair, ask("base_abc", [1, -2, 3.5], "explanations"))
    assert answer == {"explained": [[1.0, -2.0, 3.5]], "flag": True}


def test_its_own_description(pair: Pair) -> None:
    call = Call(method="GET", path="/models/base_abc?customized=true")
    theirs, ours = pair.ask_management(call)
    assert theirs.json()[0]["customizedMetadata"] == ours.json()[0]["customizedMetadata"]


def test_a_subclass_with_one_hook(pair: Pair) -> None:
    assert_same(pair, ask("base_only", [1, -2, 3.5]))


def test_metrics(pair: Pair) -> None:
    assert assert_same_reply(pair, ask("own_handle", [1]))["body"] == b"1"


KINDS = [
    "refuse",
    "service",
    "default",
    "text",
    "memory",
    "cuda",
    "value",
    "status",
    "all",
    "count",
    "dict",
    "object",
    "fine",
]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_and_answers(pair: Pair, kind: str) -> None:
    assert_same_reply(pair, ask("errors", kind.encode()))


def test_several_files(pair: Pair) -> None:
    assert assert_same(pair, ask("several", [1])) == {"area": 6, "shout": "PEAR!", "cwd": True}


def test_an_image_classifier_with_its_own_transform(pair: Pair) -> None:
    assert isinstance(assert_same(pair, ask("classifier", image())), int)


def test_an_image_classifier_with_its_own_postprocess(pair: Pair) -> None:
    answer = assert_same(pair, ask("top_three", image()))
    assert (len(answer["all"]), answer["k"]) == (3, 3)


def test_a_wrong_image_for_it(pair: Pair) -> None:
    assert assert_same_reply(pair, ask("top_three", b"no image"))["status"] == 503


def test_micro_batching(pair: Pair) -> None:
    rows = [[0, 0, 0], [1, -2, 3.5], [-100, 0, 42], [1, 2, 3]]
    answers = []
    for url in (pair.theirs, pair.ours):
        with ThreadPoolExecutor(4) as clients:
            asked = [clients.submit(exchange, url, ask("micro", row)) for row in rows]
        answers.append([one.result().json() for one in asked])
    theirs, ours = answers
    assert is_close([one["scores"] for one in ours], [one["scores"] for one in theirs])
    assert sorted(one["piece"] for one in ours) == [0, 1, 2, 3]
    assert sorted(one["piece"] for one in theirs) == [0, 1, 2, 3]


def test_names_of_ts(pair: Pair) -> None:
    answer = assert_same(pair, ask("util_names", [1]))
    assert (answer["version"], answer["clean"], answer["memory"]) == ("0.12.0", "a", True)
