"""`send_intermediate_predict_response`: what it sends, to whom, and where there is nobody."""

from __future__ import annotations

import pytest

from hatch_mar.model.context import Context
from hatch_mar.model.protocol import Request, Response, join_pieces
from hatch_mar.model.streaming import send_intermediate_predict_response
from hatch_mar.ts.handler_utils import utils
from hatch_mar.ts.protocol import otf_message_handler


@pytest.fixture
def context() -> Context:
    context = Context("m", "/", None, 2, None)
    context.begin([Request("one", (), ()), Request("two", (), ())])
    return context


def test_every_request_gets_its_item(context: Context) -> None:
    context.set_response_content_type(1, "text/plain")
    send_intermediate_predict_response(["a", {"b": 1}], context.request_ids, "", 200, context)
    (one, first), (two, second) = context.pieces
    assert (one, two) == ("one", "two")
    assert (first.body, second.body) == (b"a", b'{\n  "b": 1\n}')
    assert (first.content_type, second.content_type) == (None, "text/plain")
    assert first.announces_more


def test_some_requests_only(context: Context) -> None:
    send_intermediate_predict_response(["a", "b"], {1: "two"}, "", 200, context)
    assert [(ident, piece.body) for ident, piece in context.pieces] == [("two", b"b")]


def test_a_code_that_is_an_error_is_one(context: Context) -> None:
    send_intermediate_predict_response(["a", "b"], {0: "one"}, "broken", 500, context)
    ((_, piece),) = context.pieces
    assert (piece.error, piece.status, piece.body) == (True, 500, b"broken")


def test_an_item_that_cannot_be_said(context: Context) -> None:
    send_intermediate_predict_response([object(), "b"], context.request_ids, "", 200, context)
    assert [piece.error for _, piece in context.pieces] == [True, False]


def test_only_the_first_process_of_a_group_sends(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    send_intermediate_predict_response(["a", "b"], context.request_ids, "", 200, context)
    assert context.pieces == []


def test_without_a_context() -> None:
    with pytest.raises(ValueError, match="no context: pass the one that `handle` was given"):
        send_intermediate_predict_response(["a"], {0: "one"}, "", 200)


def test_both_old_names_lead_here() -> None:
    assert utils.send_intermediate_predict_response is send_intermediate_predict_response
    assert (
        otf_message_handler.send_intermediate_predict_response
        is utils.send_intermediate_predict_response
    )


def test_joined_pieces_have_the_head_of_the_first() -> None:
    first = Response(201, b"a", "Made", "text/plain", (("X", "1"), ("ts_stream_next", "true")))
    joined = join_pieces([first, Response(200, b"b")], Response(200, b"c"))
    assert joined == Response(201, b"abc", "Made", "text/plain", (("X", "1"),))


def test_an_error_takes_the_place_of_all() -> None:
    error = Response(503, b"no", error=True)
    assert join_pieces([Response(200, b"a")], error) is error
