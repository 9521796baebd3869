"""Streams what the `X-Do` header asks for."""

import os

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.protocol.otf_message_handler import (
    send_intermediate_predict_response as send_by_its_older_name,
)
from ts.utils.util import PredictionException


def handle(data, context):
    if data is None:
        return None
    wish = context.get_all_request_header(0).get("X-Do", "words")
    return WISHES[wish](context)


def send(context, piece, code=200):
    pieces = [piece for _ in context.request_ids]
    send_intermediate_predict_response(pieces, context.request_ids, "a piece", code, context)


def words(context):
    for word in ("one ", "two ", "three "):
        send(context, word)
    return ["four"]


def kinds(context):
    for piece in ({"a": 1}, [1, 2.5], b"\x00\xff", bytearray(b"x"), 7, None):
        send(context, piece)
    return [{"end": True}]


def empty(context):
    send(context, "")
    send(context, "x")
    return [""]


def older(context):
    ids = context.request_ids
    send_by_its_older_name(["one"], ids, "a piece", 200, context)
    return ["two"]


def head(context):
    context.set_response_content_type(0, "text/plain")
    context.set_response_header(0, "X-Mood", "fine")
    context.set_response_status(201, "Made", 0)
    return words(context)


def late_head(context):
    send(context, "one ")
    return head(context)


def plain(context):
    return ["plain"]


def fail_at_once(context):
    raise ValueError("no such digit")


def fail(context):
    send(context, "one ")
    raise ValueError("no such digit")


def refuse(context):
    send(context, "one ")
    raise PredictionException("refused", 422)


def nothing(context):
    send(context, "one ")


def die(context):
    send(context, "one ")
    os._exit(3)


WISHES = {
    "words": words,
    "kinds": kinds,
    "empty": empty,
    "older": older,
    "head": head,
    "late-head": late_head,
    "plain": plain,
    "fail-at-once": fail_at_once,
    "fail": fail,
    "refuse": refuse,
    "nothing": nothing,
    "die": die,
}
