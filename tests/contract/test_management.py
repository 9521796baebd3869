"""The management port's reading half: lists and descriptions, field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.differences import assert_same, assert_same_reply
from tests.support.exchange import Call, Pair

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.torchserve import TorchServeHome

OF_THE_MOMENT = {"id", "startTime", "memoryUsage", "pid"}
"""Fields of a worker that differ from one start to the next."""


@pytest.fixture(scope="module")
def store(
    torchserve_home: TorchServeHome, handlers: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    store = tmp_path_factory.mktemp("store")
    for name in ("echo", "mortal"):
        project = handlers / name
        config = project / "model-config.yaml"
        torchserve_home.make_archive(
            name,
            store,
            handler=str(project / "handler.py"),
            version="2.0",
            config=config if config.exists() else None,
        )
    return store


def _lasting(described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replace what differs between two starts by its type."""
    for model in described:
        model["workers"] = [
            {key: type(value) if key in OF_THE_MOMENT else value for key, value in worker.items()}
            for worker in model["workers"]
        ]
    return described


@pytest.mark.parametrize(
    "path", ["/models/echo", "/models/echo/2.0", "/models/echo/all", "/models/mortal"]
)
def test_same_description(pair: Pair, path: str) -> None:
    replies = pair.ask_management(Call(method="GET", path=path))
    theirs, ours = (_lasting(reply.json()) for reply in replies)
    assert [list(model) for model in ours] == [list(model) for model in theirs]
    for expected, described in zip(theirs, ours, strict=True):
        assert_same("description", expected, described)


@pytest.mark.parametrize(
    "path",
    [
        "/models",
        "/models?limit=1",
        "/models?limit=1&next_page_token=1",
        "/models/nobody",
        "/models/echo/9.9",
        "/nowhere",
    ],
)
def test_same_reply(pair: Pair, path: str) -> None:
    theirs, ours = pair.ask_management(Call(method="GET", path=path))
    assert_same_reply(path, theirs, ours)
