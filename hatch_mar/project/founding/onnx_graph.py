"""What an ONNX file asks for, read from its protobuf: the inputs of its graph, and files beside it.

The field numbers are those of `onnx.proto` (ModelProto, GraphProto, ValueInfoProto, TensorProto).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatch_mar.project.founding.pickled import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Protobuf's wire types; the other two are not used any more."""
MODEL_IR_VERSION, MODEL_GRAPH = 1, 7
GRAPH_INITIALIZER, GRAPH_INPUT = 5, 11
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "str_",
    9: "bool_",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
"""TensorProto.DataType, by numpy's names."""

Field = tuple[int, int, "int | memoryview"]
"""A field's number, its wire type, and its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What is worth knowing of one."""

    inputs: tuple[Tensor, ...]
    companions: tuple[str, ...]


def read_graph(path: Path) -> Graph | None:
    """Return the graph of the ONNX model in `path`; None if that is no ONNX model."""
    with path.open("rb") as file:
        # Not closed by hand: it lives as long as there are views of it, as in an error's traceback.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return _read_model(memoryview(mapped))
    except (ValueError, IndexError):
        return None


def _read_model(model: memoryview) -> Graph | None:
    fields = {number: value for number, _, value in _fields(model)}
    graph = fields.get(MODEL_GRAPH)
    if not isinstance(fields.get(MODEL_IR_VERSION), int) or not isinstance(graph, memoryview):
        return None
    weights = set()
    companions: dict[str, None] = {}
    inputs = []
    for number, _, value in _fields(graph):
        if number == GRAPH_INITIALIZER and isinstance(value, memoryview):
            name, place = _read_initializer(value)
            weights.add(name)
            if place:
                companions[place] = None
        elif number == GRAPH_INPUT and isinstance(value, memoryview):
            inputs.append(_read_input(value))
    return Graph(
        inputs=tuple(each for each in inputs if each.name not in weights),
        companions=tuple(companions),
    )


def _read_initializer(tensor: memoryview) -> tuple[str, str]:
    """Return a weight's name, and the file that holds its numbers if that is another one."""
    name, place = "", ""
    for number, _, value in _fields(tensor):
        if number == 8:  # noqa: PLR2004 - TensorProto.name
            name = _text(value)
        elif number == 13 and isinstance(value, memoryview):  # noqa: PLR2004 - external_data
            pair = {key: _text(each) for key, _, each in _fields(value)}
            place = pair.get(2, "") if pair.get(1) == "location" else place
    return name, place


def _read_input(info: memoryview) -> Tensor:
    fields = {number: value for number, _, value in _fields(info)}
    kind = _inner(_inner(fields.get(2)).get(1))  # ValueInfoProto.type.tensor_type
    dimensions = kind.get(2)
    listed = list(_fields(dimensions)) if isinstance(dimensions, memoryview) else []
    shape = [_inner(dimension).get(1, 0) for _, _, dimension in listed]
    dtype = kind.get(1)
    return Tensor(
        _text(fields.get(1, b"")),
        DTYPES.get(dtype, "") if isinstance(dtype, int) else "",
        tuple(each if isinstance(each, int) else 0 for each in shape),
    )


def _inner(value: int | memoryview | None) -> dict[int, int | memoryview]:
    if not isinstance(value, memoryview):
        return {}
    return {number: each for number, _, each in _fields(value)}


def _text(value: int | memoryview | bytes) -> str:
    return "" if isinstance(value, int) else bytes(value).decode()


def _fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a protobuf message.

    Raises:
        ValueError: it is none.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, wire, value
            continue
        if wire == BYTES:
            length, at = _varint(message, at)
        elif wire in (FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if number == 0 or at + length > len(message):
            raise ValueError("a field that is longer than its message")
        yield number, wire, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last of its bytes
            return value, at
        shift += 7
        if shift > 63:  # noqa: PLR2004 - 64 bits are all there are
            raise ValueError("a number of more than 64 bits")
