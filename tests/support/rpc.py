"""One gRPC call from what a TOML file can say, and what came back as JSON can say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from hatch_mar.api.rpc.schema import PACKAGE, message, methods

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcCall:
    """One call: values are those of the request's fields, text where the field is of bytes."""

    service: str
    method: str
    each: Sequence[Mapping[str, Any]]
    """One request, or as many as the client streams."""
    metadata: Sequence[tuple[str, str]] = ()


def call(place: str, wish: RpcCall, *, patience: float) -> Fields:
    """Call the server at `place` (host:port): code, details, and every answer that came."""
    service = f"{PACKAGE}.{wish.service}"
    (method,) = (each for each in methods(service) if each.name == wish.method)
    make = message(method.input_type.full_name)
    requests = [make(**_typed(method.input_type, values)) for values in wish.each]
    answers: list[Any] = []
    with grpc.insecure_channel(place) as channel:
        invoke = getattr(channel, _SHAPES[method.client_streaming, method.server_streaming])(
            f"/{service}/{wish.method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message(method.output_type.full_name).FromString,
        )
        given = iter(requests) if method.client_streaming else requests[0]
        try:
            found = invoke(given, timeout=patience, metadata=list(wish.metadata))
            answers.extend(map(_plain, found if method.server_streaming else [found]))
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": error.details(), "answers": answers}
    return {"code": "OK", "details": "", "answers": answers}


_SHAPES = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, True): "stream_stream",
}


def _typed(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with bytes where a field of the message type `kind` has them."""
    return {name: _typed_field(kind.fields_by_name[name], value) for name, value in values.items()}


def _typed_field(field: Any, value: Any) -> Any:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        of_value = inner.fields_by_name["value"]
        return {key: _typed_field(of_value, each) for key, each in value.items()}
    if isinstance(value, list):
        return [_typed_field(field, each) for each in value]
    if isinstance(value, dict):
        return _typed(inner, value)
    return value.encode() if field.type == field.TYPE_BYTES else value


def _plain(found: Any) -> Any:
    """Return the fields of a message that are set."""
    return {field.name: _plain_value(value) for field, value in found.ListFields()}


def _plain_value(value: Any) -> Any:
    if hasattr(value, "ListFields"):
        return _plain(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"hex": value.hex()}
    if isinstance(value, str | int | float | bool):
        return value
    if hasattr(value, "items"):
        return {str(key): _plain_value(value[key]) for key in sorted(value)}
    return [_plain_value(each) for each in value]
