"""Request envelopes: what stands between a client's format and a handler, if settings name one.

TorchServe's four, with the quirks that clients see, except that `kserve` and `kservev2` do not fail
batches of several requests: each of them goes to the handler by itself.
"""

# ruff: noqa: ANN401 - a handler may be given and return anything

from __future__ import annotations

import base64
import importlib
import itertools
import json
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import HandlerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Handle = Callable[[Any, Any], Any]


class BaseEnvelope:
    """Calls a handler with what it makes of the rows, and makes answers of what comes back."""

    def __init__(self, handle_fn: Handle) -> None:
        """Wrap `handle_fn`."""
        self._handle_fn = handle_fn
        self.context: Any = None

    def handle(self, data: Any, context: Any) -> Any:
        """Answer the rows `data`; nothing is parsed, and nothing formatted, that is empty."""
        self.context = context
        results = self._handle_fn(self.parse_input(data) if data else data, context)
        return self.format_output(results) if results else results

    def parse_input(self, data: Any) -> Any:
        """Return what the handler gets for the rows `data`."""
        raise NotImplementedError

    def format_output(self, data: Any) -> Any:
        """Return the answers for what the handler returned."""
        raise NotImplementedError


class BodyEnvelope(BaseEnvelope):
    """`body`: the handler gets a list of bodies instead of rows."""

    def parse_input(self, data: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return each row's `data` or `body`."""
        return [_body(row) for row in data]

    def format_output(self, data: Any) -> Any:
        """Return `data`."""
        return data


class JSONEnvelope(BaseEnvelope):
    """`json`: TensorFlow Serving's `{"instances": [...]}` becomes `{"predictions": [...]}`.

    The handler gets the instances of all requests in one list.
    """

    def __init__(self, handle_fn: Handle) -> None:
        """Wrap `handle_fn`."""
        super().__init__(handle_fn)
        self._lengths: list[int] = []

    def parse_input(self, data: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return all instances; `{"b64": text}`, also as a value of one, becomes bytes."""
        batches = [_decode((_body(row) or row)["instances"]) for row in data]
        self._lengths = [len(batch) for batch in batches]
        return list(itertools.chain.from_iterable(batches))

    def format_output(self, data: Any) -> list[str]:
        """Return one object, as text, for each request."""
        ends = list(itertools.accumulate(self._lengths, initial=0))
        return [
            json.dumps({"predictions": data[start:end]}) for start, end in itertools.pairwise(ends)
        ]


def _decode(instances: list[Any]) -> list[Any]:
    """Return `instances`, decoded if the first says that they are objects."""
    if not isinstance(instances[0], dict):
        return instances
    decoded: list[Any] = []
    for instance in instances:
        if _is_base64(instance):
            decoded.append(base64.b64decode(instance["b64"]))
        else:
            decoded.append(
                {
                    key: base64.b64decode(value["b64"]) if _is_base64(value) else value
                    for key, value in instance.items()
                }
            )
    return decoded


def _is_base64(value: Any) -> bool:
    """Tell whether `value` is an object with the one key `b64`."""
    return isinstance(value, dict) and list(value) == ["b64"]


class SingleEnvelope(BaseEnvelope):
    """An envelope of formats in which one request is already a batch."""

    def handle(self, data: Any, context: Any) -> Any:
        """Answer the rows, one after the other."""
        if data is None or len(data) <= 1:
            return super().handle(data, context)
        processors, ids = context.request_processor, context.request_ids
        answers: list[Any] = []
        try:
            for index, row in enumerate(data):  # the handler sees each as the first of its batch
                context.request_processor = [processors[index]]
                context.request_ids = {0: ids[index]}
                answer = super().handle([row], context)
                if not isinstance(answer, list) or len(answer) != 1:
                    return answer  # the same mistake as in a batch of one
                answers += answer
        finally:
            context.request_processor, context.request_ids = processors, ids
        return answers


class KServeEnvelope(SingleEnvelope):
    """`kserve`: `{"instances": [...]}` becomes `{"predictions": [...]}`, or `explanations`."""

    def parse_input(self, data: Sequence[Mapping[str, Any]]) -> Any:
        """Return the request's instances."""
        return _parse(_body(data[0])).get("instances")

    def format_output(self, data: Any) -> list[dict[str, Any]]:
        """Return one object."""
        explain = self.context.get_request_header(0, "explain") == "True"
        return [{"explanations" if explain else "predictions": data}]


class KServev2Envelope(SingleEnvelope):
    """`kservev2`: the Open Inference Protocol's `inputs` become `outputs`.

    The handler gets the inputs as they are, their `data` in their `shape` (of `BYTES` the first
    element), and returns one thing for each. Their names are on the context as `input_names`.
    """

    def parse_input(self, data: Sequence[Mapping[str, Any]]) -> Any:
        """Return the request's inputs."""
        body = _parse(_body(data[0]))
        for one in body["inputs"]:
            one["data"] = (
                one["data"][0]
                if one["datatype"] == "BYTES"
                else _numpy().array(one["data"]).reshape(tuple(one["shape"])).tolist()
            )
        self.context.input_names = [one["name"] for one in body["inputs"]]
        named = body.get("id")
        if named and named.strip():
            self.context.input_request_id = named
        return body["inputs"]

    def format_output(self, data: Any) -> list[dict[str, Any]]:
        """Return one object; an output is flat, and has the name of the input in its place."""
        own = vars(self.context).pop("input_request_id", None)
        names = vars(self.context).pop("input_names")
        model = self.context.manifest["model"]
        return [
            {
                "id": self.context.get_request_id(0) if own is None else own,
                "model_name": model.get("modelName"),
                "model_version": model.get("modelVersion"),
                "outputs": [_describe(one, names[place]) for place, one in enumerate(data)],
            }
        ]


def _describe(value: Any, name: str) -> dict[str, Any]:
    array = _numpy().array(value).flatten()
    kind = DATATYPES.get(str(array.dtype)) or DATATYPES[array.dtype.kind]
    return {"name": name, "datatype": kind, "data": array.tolist(), "shape": array.shape}


BITS = (8, 16, 32, 64)
DATATYPES: dict[str, str] = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "object": "BYTES",
    "U": "BYTES",
    **{name: name.upper() for bits in BITS for name in (f"int{bits}", f"uint{bits}")},
}
"""The protocol's names of NumPy's element types, or of a kind of them."""


def _body(row: Mapping[str, Any]) -> Any:
    return row.get("data") or row.get("body")


def _parse(body: Any) -> Any:
    """Return `body`, from JSON where the client did not say it is."""
    return json.loads(bytes(body).decode()) if isinstance(body, bytes | bytearray) else body


def _numpy() -> Any:
    return importlib.import_module("numpy")


ENVELOPES: Mapping[str, type[BaseEnvelope]] = {
    "body": BodyEnvelope,
    "json": JSONEnvelope,
    "kserve": KServeEnvelope,
    "kservev2": KServev2Envelope,
}
"""Every envelope by the name that settings have for it."""


def find_envelope(name: str) -> type[BaseEnvelope]:
    """Return the envelope `name`.

    Raises:
        HandlerError: there is none.
    """
    found = ENVELOPES.get(name)
    if found is None:
        known = ", ".join(ENVELOPES)
        raise HandlerError(f"service envelope {name!r}: there is none; there are {known}")
    return found
