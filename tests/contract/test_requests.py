"""Every list of requests: our replies and TorchServe's recorded ones, field by field."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.scenes import (
    CONTRACT,
    Fields,
    differences,
    fields_that_may_differ,
    scenes,
    write_record,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.torchserve import TorchServeHome

GUIDE = CONTRACT.parents[1] / "docs" / "how-to" / "migrate-from-torchserve.md"
ASKED = [
    pytest.param(scene.name, asked.id, id=asked.id)
    for scene in scenes().values()
    for asked in scene.requests
]


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that plays a scene to our server, once."""

    @cache
    def play(name: str) -> dict[str, Fields]:
        return scenes()[name].play(None, tmp_path_factory.mktemp(name))

    return play


@pytest.mark.parametrize(("scene", "ident"), ASKED)
def test_same_reply(ours: Any, scene: str, ident: str) -> None:
    theirs, reply = scenes()[scene].recorded()[ident], ours(scene)[ident]
    meant = fields_that_may_differ(ident)
    different = {name for name in {*theirs, *reply} if theirs.get(name) != reply.get(name)}
    unmeant = different - meant
    assert {name: reply.get(name) for name in unmeant} == {
        name: theirs.get(name) for name in unmeant
    }
    equal = meant - different - {"header content-length"}
    assert not equal, f"differences.toml calls {sorted(equal)} different: they are equal now"


def test_a_difference_is_of_a_request_that_exists() -> None:
    known = {asked.id for scene in scenes().values() for asked in scene.requests}
    named = {ident for meant in differences() for ident in meant.fields}
    assert named <= known


def test_the_guide_tells_every_difference() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in GUIDE.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    told = {row[0]: row[-1] for row in rows}
    meant = {one.what: one.why for one in differences()}
    assert {what: told.get(what) for what in meant} == meant


@pytest.mark.slow
@pytest.mark.parametrize("name", scenes())
def test_torchserve_still_answers_so(
    torchserve_home: TorchServeHome, tmp_path: Path, name: str
) -> None:
    """Ask the real one again. `HATCH_MAR_RECORD=1` keeps what it says."""
    scene = scenes()[name]
    replies = scene.play(torchserve_home, tmp_path)
    if os.environ.get("HATCH_MAR_RECORD") == "1":
        write_record(scene, replies)
    assert replies == scene.recorded()
