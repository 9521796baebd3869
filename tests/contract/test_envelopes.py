"""Request envelopes, named by the server's settings: same answers from both servers."""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.model.envelopes import ENVELOPES
from tests.support.exchange import Call, Pair
from tests.support.torchserve import start_torchserve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.torchserve import TorchServeHome

pytestmark = pytest.mark.slow
HANDLER = """
class Echo:
    def initialize(self, context):
        self.count = 0

    def handle(self, data, context):
        def show(value):
            if isinstance(value, (bytes, bytearray)):
                return "bytes:" + value.decode()
            if isinstance(value, dict):
                return {key: show(one) for key, one in value.items()}
            return value
        return [show(one) for one in data]
"""


@pytest.fixture(scope="module", params=ENVELOPES)
def pair(
    torchserve_home: TorchServeHome,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Pair]:
    """Serve one handler with both, behind the envelope that the settings name."""
    store, files = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("files")
    (files / "handler.py").write_text(HANDLER)
    torchserve_home.make_archive("echo", store, handler=str(files / "handler.py"))
    settings = {"service_envelope": request.param}
    with (
        start_torchserve(torchserve_home, store, settings=settings) as theirs,
        start_torchserve(None, store, settings=settings) as ours,
    ):
        yield Pair(
            theirs=theirs.url,
            ours=ours.url,
            their_management=theirs.management_url,
            our_management=ours.management_url,
        )


TEXT = {"b64": base64.b64encode(b"pixels").decode()}
INPUT = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}
BODIES = {
    "instances": {"instances": [1, [2.5, "three"], None]},
    "base64": {"instances": [TEXT, {"image": TEXT, "size": 3}]},
    "no-instances": {"instances": []},
    "inputs": {"inputs": [INPUT], "id": "mine"},
    "two-inputs": {"inputs": [INPUT, {**INPUT, "name": "y", "shape": [4]}], "id": " "},
    "text-input": {"inputs": [{**INPUT, "datatype": "BYTES", "data": ["a", "b"]}], "id": "1"},
    "wrong-shape": {"inputs": [{**INPUT, "shape": [3]}], "id": "1"},
    "no-inputs": {"inputs": [], "id": "1"},
    "list": [1, 2],
    "number": 5,
    "text": "words",
    "nothing": None,
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("kind", ["application/json", "application/octet-stream"])
@pytest.mark.parametrize("verb", ["predictions", "explanations"])
def test_same_answer(pair: Pair, body: str, kind: str, verb: str) -> None:
    call = Call(
        path=f"/{verb}/echo",
        headers=[("Content-Type", kind)],
        body=json.dumps(BODIES[body]).encode(),
    )
    theirs, ours = (_without_own_id(reply.comparable()) for reply in pair.ask(call))
    assert ours == theirs


def test_the_envelope_is_there(pair: Pair, request: pytest.FixtureRequest) -> None:
    """So that two servers without any do not agree with each other."""
    name = request.node.callspec.params["pair"]
    wanted = {
        "body": ([1], [1]),
        "json": ({"instances": [1]}, {"predictions": [1]}),
        "kserve": ({"instances": [1]}, {"predictions": [1]}),
        "kservev2": ({"inputs": [INPUT]}, None),
    }
    sent, expected = wanted[name]
    headers = [("Content-Type", "application/json")]
    call = Call(path="/predictions/echo", headers=headers, body=json.dumps(sent).encode())
    for answer in pair.answers(call):
        if name == "body":
            assert answer == [1], "the handler got the body itself"
        elif name == "kservev2":
            assert answer["model_name"] == "echo"
        else:
            assert answer == expected


def _without_own_id(reply: dict[str, Any]) -> dict[str, Any]:
    """Return `reply`; where the server itself has named the request, it says only that."""
    with contextlib.suppress(ValueError):
        answer = json.loads(reply["body"])
        if isinstance(answer, dict) and len(answer.get("id") or "") == len(str(uuid.uuid4())):
            reply["body"] = {**answer, "id": "a UUID4"}
    return reply
