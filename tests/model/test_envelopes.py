"""Request envelopes: what handlers get, what clients get."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.model.context import Context
from hatch_mar.model.envelopes import ENVELOPES, BaseEnvelope, find_envelope
from hatch_mar.model.protocol import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.models import Ask, Load, MakeModel


def wrap(name: str, handler: Callable[[Any], Any], count: int = 1, *, explain: bool = False) -> Any:
    """Return a function that sends rows through the envelope `name` to `handler`."""
    manifest = {"model": {"modelName": "digits", "modelVersion": "1.0"}}
    context = Context("digits", ".", manifest, 1, None)
    context.begin([Request(f"r{n}", (), (), explain=explain) for n in range(count)])
    envelope = find_envelope(name)(lambda data, _: handler(data))
    return lambda rows: envelope.handle(rows, context)


def keep(seen: list[Any], answer: list[Any]) -> Callable[[Any], Any]:
    """Return a handler that puts what it gets into `seen`."""

    def handler(data: Any) -> Any:
        seen.extend(data)
        return answer

    return handler


def double(data: Any) -> Any:
    return [2 * one for one in data]


def test_body_unwraps() -> None:
    assert wrap("body", double)([{"body": 3}, {"data": 4}]) == [6, 8]


def test_json_joins_the_instances_of_all_requests() -> None:
    seen: list[Any] = []

    def handler(data: Any) -> Any:
        seen.append(data)
        return double(data)

    rows = [{"body": {"instances": [1, 2]}}, {"instances": [3]}, {"data": {"instances": []}}][:2]
    answers = wrap("json", handler)(rows)
    assert seen == [[1, 2, 3]]
    assert answers == ['{"predictions": [2, 4]}', '{"predictions": [6]}']


def test_json_decodes_base64() -> None:
    text = {"b64": base64.b64encode(b"pixels").decode()}
    rows = [{"body": {"instances": [text, {"image": text, "size": 3}]}}]
    seen: list[Any] = []
    wrap("json", keep(seen, ["a", "b"]))(rows)
    assert seen == [b"pixels", {"image": b"pixels", "size": 3}]


def test_kserve_answers_predictions() -> None:
    assert wrap("kserve", double)([{"body": {"instances": [1, 2]}}]) == [{"predictions": [2, 4]}]


def test_kserve_reads_json_that_came_as_bytes() -> None:
    assert wrap("kserve", double)([{"body": b'{"instances": [1]}'}]) == [{"predictions": [2]}]


def test_kserve_answers_explanations() -> None:
    answer = wrap("kserve", double, explain=True)([{"body": {"instances": [1]}}])
    assert answer == [{"explanations": [2]}]


def test_kserve_answers_every_request_of_a_batch() -> None:
    rows = [{"body": {"instances": [1, 2]}}, {"body": {"instances": [5]}}]
    assert wrap("kserve", double, 2)(rows) == [{"predictions": [2, 4]}, {"predictions": [10]}]


def infer(data: Any, shape: list[int], datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    one = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    return {"body": {"inputs": [one], **more}}


def test_kservev2_puts_data_into_shape() -> None:
    seen: list[Any] = []
    wrap("kservev2", keep(seen, [1]))([infer([1, 2, 3, 4], [2, 2])])
    assert seen[0]["data"] == [[1, 2], [3, 4]]


def test_kservev2_gives_the_first_element_of_bytes() -> None:
    seen: list[Any] = []
    wrap("kservev2", keep(seen, [1]))([infer(["text"], [1], "BYTES")])
    assert seen[0]["data"] == "text"


@pytest.mark.parametrize(
    ("output", "datatype", "data"),
    [
        ([[1, 2], [3, 4]], "INT64", [1, 2, 3, 4]),
        (0.5, "FP64", [0.5]),
        (True, "BOOL", [True]),
        ("text", "BYTES", ["text"]),
        ({"a": 1}, "BYTES", [{"a": 1}]),
    ],
)
def test_kservev2_describes_outputs(output: Any, datatype: str, data: list[Any]) -> None:
    (answer,) = wrap("kservev2", lambda _: [output])([infer([1], [1])])
    assert list(answer) == ["id", "model_name", "model_version", "outputs"]
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("r0", "digits", "1.0")
    (found,) = answer["outputs"]
    assert list(found) == ["name", "datatype", "data", "shape"]
    assert found == {"name": "x", "datatype": datatype, "data": data, "shape": (len(data),)}
    json.dumps(answer)


def test_kservev2_keeps_the_clients_id() -> None:
    rows = [infer([1], [1], id="mine"), infer([1], [1])]
    assert [one["id"] for one in wrap("kservev2", lambda _: [1], 2)(rows)] == ["mine", "r1"]


def test_what_is_empty_goes_through() -> None:
    for name in ENVELOPES:
        assert wrap(name, lambda data: data)([]) == []


def test_a_base_envelope_does_nothing_by_itself() -> None:
    with pytest.raises(NotImplementedError):
        BaseEnvelope(print).parse_input([])
    with pytest.raises(NotImplementedError):
        BaseEnvelope(print).format_output([])


HANDLER = """
started = []

def handle(data, context):
    if data is None:
        started.append(True)
        return None
    return [[started, one] for one in data]
"""


def test_a_model_is_loaded_behind_its_envelope(
    make_model: MakeModel, load_model: Load, ask: Ask
) -> None:
    """Initialising a handler goes past it."""
    served = load_model(make_model({"handler.py": HANDLER}, envelope="kserve"))
    answers = served.predict([ask(b'{"instances": [7]}'), ask(b'{"instances": [8]}', id="r2")])
    assert [json.loads(bytes(one.body)) for one in answers] == [
        {"predictions": [[[True], 7]]},
        {"predictions": [[[True], 8]]},
    ]


@pytest.mark.parametrize("name", ["json", "kserve", "kservev2"])
@pytest.mark.parametrize("body", [b'{"wrong": 1}', b"3", b"not JSON"])
def test_what_an_envelope_cannot_read_fails_as_in_torchserve(
    make_model: MakeModel, load_model: Load, ask: Ask, name: str, body: bytes
) -> None:
    served = load_model(make_model({"handler.py": HANDLER}, envelope=name))
    (answer,) = served.predict([ask(body)])
    assert (answer.status, answer.error) == (503, True)
