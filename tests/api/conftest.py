"""One server for all tests of the room that only ask it things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.archives import write_mar
from tests.support.runner import Runner, start_runner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIRROR = """
    def handle(data, context):
        if data is None:
            return None
        return [see(i, row, context) for i, row in enumerate(data)]

    def see(i, row, context):
        headers = context.get_all_request_header(i)
        return {
            "row": {name: [type(value).__name__, show(value)] for name, value in row.items()},
            "headers": {n: v for n, v in headers.items() if isinstance(v, str)},
            "id": context.get_request_id(i),
        }

    def show(value):
        return value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else value
"""
ODD = """
    import os
    import time

    def handle(data, context):
        if data is None:
            return None
        return [act(i, row["body"], context) for i, row in enumerate(data)]

    def act(i, order, context):
        if "status" in order:
            context.set_response_status(order["status"], order.get("phrase", ""), i)
        for name, value in order.get("headers", {}).items():
            context.set_response_header(i, name, value)
        if "type" in order:
            context.set_response_content_type(i, order["type"])
        if "die" in order:
            os._exit(3)
        if "error" in order:
            raise RuntimeError(order["error"])
        if "touch" in order:
            open(order["touch"], "w").close()
        while "until" in order and not os.path.exists(order["until"]):
            time.sleep(0.005)
        return order["text"] * order.get("times", 1)
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Archives of three model versions: `mirror` 1.0 and 2.0 say what they see, `odd` obeys."""
    directory = tmp_path_factory.mktemp("models")
    return [
        write_mar(directory, "mirror", MIRROR),
        write_mar(directory, "mirror", MIRROR, version="2.0"),
        write_mar(directory, "odd", ODD),
    ]


@pytest.fixture(scope="session")
def server(models: list[Path]) -> Iterator[Runner]:
    """`hatch-mar serve` of `models`, on three ports; nobody may break it."""
    with start_runner(*map(str, models)) as runner:
        assert runner.exited() is None, runner.output()
        yield runner


@pytest.fixture
def odd(models: list[Path]) -> Iterator[Runner]:
    """A server of `odd` alone, to do with it as one likes."""
    with start_runner(str(models[2])) as runner:
        assert runner.exited() is None, runner.output()
        yield runner
