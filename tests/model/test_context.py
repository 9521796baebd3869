"""`context`, as TorchServe's handlers use it."""

from __future__ import annotations

from typing import Any

import pytest

from hatch_mar.model.context import Context, RequestProcessor, make_context
from hatch_mar.model.protocol import LoadOptions, Part, Request


def begun(*requests: Request) -> Context:
    context = Context("m", "/models/m", {"model": {}}, 4, None)
    context.begin(requests)
    return context


def request(**more: object) -> Request:
    return Request(
        id=str(more.get("id", "r")),
        headers=[("X-Tag", "a"), ("x-tag", "b"), ("Only-This", "c")],
        parts=[Part("body", "text/plain", b"")],
    )


def test_the_system_properties_are_torchserves() -> None:
    context = Context("m", "/models/m", None, 4, 1, "0.12.0", False)
    assert context.system_properties == {
        "model_dir": "/models/m",
        "gpu_id": 1,
        "batch_size": 4,
        "server_name": "MMS",
        "server_version": "0.12.0",
        "limit_max_image_pixels": False,
    }


def test_options_become_a_context() -> None:
    options = LoadOptions(
        model_name="m",
        model_version="1",
        model_dir="/models/m",
        handler="h",
        manifest={"model": {"modelName": "m"}},
        config={"handler": {"a": 1}},
        batch_size=8,
        trusted_pickle=("a.pt",),
    )
    context = make_context(options)
    assert context.manifest == {"model": {"modelName": "m"}}
    assert context.model_yaml_config == {"handler": {"a": 1}}
    assert context.system_properties["batch_size"] == 8
    assert context.system_properties["gpu_id"] is None
    assert context.trusted_pickle == ("a.pt",)


def test_a_model_without_a_config_has_an_empty_one() -> None:
    assert Context("m", ".", None, 1, None).model_yaml_config == {}


def test_headers_are_found_as_they_were_sent_first() -> None:
    context = begun(request())
    assert context.get_request_header(0, "X-Tag") == "a"
    assert context.get_request_header(0, "x-tag") == "b"


def test_headers_are_found_in_any_case() -> None:
    assert begun(request()).get_request_header(0, "only-this") == "c"


def test_a_missing_header_is_none() -> None:
    assert begun(request()).get_request_header(0, "nothing") is None


def test_the_content_type_is_under_the_name_of_the_part() -> None:
    assert begun(request()).get_request_header(0, "body") == {"content-type": "text/plain"}


def test_all_headers_of_a_request() -> None:
    headers = begun(request()).get_all_request_header(0)
    assert headers["Only-This"] == "c"
    assert headers["explain"] == "False"


def test_requests_have_ids() -> None:
    context = begun(request(id="one"), request(id="two"))
    assert context.request_ids == {0: "one", 1: "two"}
    assert context.get_request_id(1) == "two"
    assert context.get_request_id() == "one"
    assert context.get_request_id(9) is None


def test_a_batch_leaves_nothing_to_the_next_one() -> None:
    context = begun(request())
    context.cache = "kept"  # type: ignore[attr-defined]
    context.set_response_status(500, "Broken", 0)
    context.set_response_header(0, "X-A", "1")
    context.begin([request()])
    assert context.get_response_status(0) == (200, None)
    assert context.get_response_headers(0) == {}
    assert context.cache == "kept"  # type: ignore[attr-defined]


def test_answers_get_their_own_status() -> None:
    context = begun(request(), request())
    context.set_response_status(code=404, phrase="Nope", idx=1)
    assert [context.get_response_status(i) for i in (0, 1)] == [(200, None), (404, "Nope")]


def test_all_answers_get_a_status() -> None:
    context = begun(request(), request())
    context.set_all_response_status(202, "Later")
    assert [context.get_response_status(i) for i in (0, 1)] == [(202, "Later")] * 2


@pytest.mark.parametrize(
    ("code", "phrase", "wrong"),
    [
        ("200", "", TypeError),
        (100_000, "", ValueError),
        (-1, "", ValueError),
        (200, "a\r\nX-Forged: 1", ValueError),
    ],
)
def test_a_status_that_no_answer_can_have_is_the_handlers_mistake(
    code: Any, phrase: str, wrong: type[Exception]
) -> None:
    context = begun(request())
    with pytest.raises(wrong):
        context.set_response_status(code, phrase, 0)
    assert context.get_response_status(0) == (200, None)


def test_a_phrase_is_text_whatever_it_was() -> None:
    context = begun(request())
    context.set_response_status(200, 5, 0)  # type: ignore[arg-type]
    assert context.get_response_status(0) == (200, "5")


def test_the_content_type_of_an_answer() -> None:
    context = begun(request())
    assert context.get_response_content_type(0) is None
    context.set_response_content_type(0, "image/png")
    assert context.get_response_content_type(0) == "image/png"


def test_a_header_that_is_a_number_becomes_text() -> None:
    context = begun(request())
    context.set_response_header(0, "X-Count", 3)  # type: ignore[arg-type]
    assert context.get_response_headers(0) == {"X-Count": "3"}


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\n", "\0"])
def test_a_header_cannot_forge_another(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        begun(request()).set_response_header(0, "X-Echo", value)


def test_the_sequence_is_named_by_a_header() -> None:
    sent = Request(id="r", headers=[("ts_request_sequence_id", "s1")], parts=[])
    assert begun(sent).get_sequence_id(0) == "s1"


def test_the_name_of_that_header_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_REQUEST_SEQUENCE_ID", "X-Sequence")
    sent = Request(id="r", headers=[("X-Sequence", "s1")], parts=[])
    assert begun(sent).get_sequence_id(0) == "s1"


def test_a_processor_speaks_for_its_request() -> None:
    processor = RequestProcessor({"a": "1"})
    processor.report_status(201)
    processor.add_response_property("b", "2")
    assert processor.get_request_properties() == {"a": "1"}
    assert processor.get_request_property("A") == "1"
    assert processor.get_response_status_code() == 201
    assert processor.get_response_status_phrase() is None
    assert processor.get_response_header("b") == "2"
