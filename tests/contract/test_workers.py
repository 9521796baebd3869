"""A worker that ends, hangs or says too much: what the client is told, and that service goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.differences import assert_same_reply
from tests.support.exchange import Call, Pair

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.torchserve import TorchServeHome


@pytest.fixture(scope="module")
def store(
    torchserve_home: TorchServeHome, handlers: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    store = tmp_path_factory.mktemp("store")
    project = handlers / "mortal"
    torchserve_home.make_archive(
        "mortal", store, handler=str(project / "handler.py"), config=project / "model-config.yaml"
    )
    return store


@pytest.mark.parametrize("wish", ["exit", "crash", "hang", "flood", "bad-header"])
def test_same_reply_and_a_new_worker(pair: Pair, wish: str) -> None:
    theirs, ours = pair.ask(Call(path="/predictions/mortal", headers=[("X-Do", wish)]))
    assert theirs.status == 500
    assert_same_reply(f"worker-{wish}", theirs, ours)
    theirs, ours = pair.ask(Call(path="/predictions/mortal"))
    assert theirs.body == b"alive"
    assert_same_reply("worker-new", theirs, ours)
