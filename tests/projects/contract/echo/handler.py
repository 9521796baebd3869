"""Does what the `X-Do` header asks, or else tells what arrived."""

from ts.utils.util import PredictionException


def handle(data, context):
    if data is None:
        return None
    wish = context.get_all_request_header(0).get("X-Do", "tell")
    return WISHES[wish](data, context)


def tell(data, context):
    return [{"row": {name: describe(value) for name, value in row.items()}} for row in data]


def describe(value):
    shown = bytes(value).hex() if isinstance(value, (bytes, bytearray)) else value
    return [type(value).__name__, shown]


def tell_headers(data, context):
    headers = dict(context.get_all_request_header(0))
    headers.pop("Host", None)
    headers = {name: headers[name] for name in sorted(headers)}
    return [{"headers": headers, "one": context.get_request_header(0, "X-One")}]


def tell_id(data, context):
    return [len(context.get_request_id(0))]


def fail(data, context):
    raise ValueError("no such digit")


def refuse(code):
    def wish(data, context):
        raise PredictionException("refused", code)

    return wish


def refuse_plainly(data, context):
    raise PredictionException("refused")


def run_out(message, kind=RuntimeError):
    def wish(data, context):
        raise kind(message)

    return wish


def give(*elements):
    return lambda data, context: list(elements)


def give_instead(value):
    return lambda data, context: value


def set_status(code, phrase=""):
    def wish(data, context):
        context.set_response_status(code=code, phrase=phrase, idx=0)
        return [{"said": code}]

    return wish


def set_all_status(data, context):
    context.set_all_response_status(202, "Later")
    return ["later"]


def set_header(data, context):
    context.set_response_header(0, "X-Model-Mood", "fine")
    context.set_response_header(0, "X-Digits", "7, 9")
    return ["with headers"]


def set_type(data, context):
    context.set_response_content_type(0, "image/png")
    return [b"\x89PNG"]


def tell_context(data, context):
    system = dict(context.system_properties)
    system["model_dir"] = type(system["model_dir"]).__name__
    manifest = dict(context.manifest)
    manifest.pop("createdOn")
    return [
        {
            "model_name": context.model_name,
            "system_properties": system,
            "manifest": manifest,
            "model_yaml_config": context.model_yaml_config,
            "request_id": context.request_ids[0] == context.get_request_id(0),
            "content_type": context.get_response_content_type(0),
            "status": list(context.get_response_status(0)),
        }
    ]


WISHES = {
    "tell": tell,
    "headers": tell_headers,
    "id": tell_id,
    "context": tell_context,
    "fail": fail,
    "refuse": refuse_plainly,
    "refuse-404": refuse(404),
    "refuse-413": refuse(413),
    "refuse-422": refuse(422),
    "refuse-200": refuse(200),
    "cuda": run_out("CUDA error: out of memory"),
    "memory": run_out("", MemoryError),
    "bytes": give(b"\x00\x01\xff"),
    "bytearray": give(bytearray(b"abc")),
    "text": give("zw\u00f6lf \u2603"),
    "empty-text": give(""),
    "dict": give({"digit": 7, "p": 0.9512345678901234, "name": "\u2603", "deep": {"a": [1, 2]}}),
    "list": give([1, [2.5, "x"], {}]),
    "empty-dict": give({}),
    "number": give(7),
    "real": give(1e-7),
    "nan": give([float("nan"), float("inf"), float("-inf")]),
    "none": give(None),
    "true": give(True),
    "huge": give(2**70),
    "number-keys": give({1: "one", None: 0, True: "yes"}),
    "tuple-inside": give((1, 2)),
    "not-json": give(object()),
    "a-set": give({"s": {1}}),
    "nothing": give_instead(None),
    "a-text": give_instead("digit"),
    "a-dict": give_instead({"digit": 7}),
    "a-tuple": give_instead(({"digit": 7},)),
    "too-many": give("one", "two"),
    "too-few": give(),
    "status-201": set_status(201, "Made"),
    "status-204": set_status(204),
    "status-418": set_status(418, "Teapot"),
    "status-503": set_status(503),
    "all-status": set_all_status,
    "header": set_header,
    "type": set_type,
}
