"""gRPC's ports: opened and closed with the others."""

# ruff: noqa: ANN401 - grpc's handlers are untyped

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from hatch_mar.api.rpc.refusals import explain
from hatch_mar.api.rpc.schema import methods
from hatch_mar.errors import AddressInUseError, WrongTokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.api.listeners import Certificate
    from hatch_mar.api.tokens import Tokens

Purpose = Literal["management", "inference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcAddress:
    """Where to listen, and how the operator said so."""

    purpose: Purpose
    host: str
    port: int
    """0 for any free one."""
    flag: str
    """The option that chose the port, to name when it is taken."""
    certificate: Certificate | None = None
    """None: not encrypted."""


class RpcServer:
    """One port."""

    def __init__(
        self,
        address: RpcAddress,
        services: Mapping[str, object],
        *,
        max_request_size: int,
        max_response_size: int,
        tokens: Tokens | None = None,
    ) -> None:
        """Serve `services`, objects whose methods are named as the protocol's, by full name.

        With `tokens`, calls need the port's key in their metadata `authorization`.
        """
        self._address = address
        self._services = services
        self._tokens = tokens
        self._options = [
            ("grpc.max_receive_message_length", max_request_size),
            ("grpc.max_send_message_length", max_response_size),
            ("grpc.so_reuseport", 0),
        ]
        self._server: Any = None

    async def open(self) -> str:
        """Listen, and return where, as `host:port`.

        Raises:
            AddressInUseError: the port is somebody else's, or the host not this machine's.
        """
        address = self._address
        gates = [] if self._tokens is None else [_Gate(self._tokens, address.purpose)]
        self._server = grpc.aio.server(interceptors=gates, options=self._options)
        for name, servicer in self._services.items():
            handlers = {
                method.name: _handler(method, getattr(servicer, method.name))
                for method in methods(name)
                if hasattr(servicer, method.name)
            }
            handler = grpc.method_handlers_generic_handler(name, handlers)
            self._server.add_generic_rpc_handlers((handler,))
        host = f"[{address.host}]" if ":" in address.host else address.host
        try:
            port = self._bind(f"{host}:{address.port}")
        except RuntimeError as error:
            raise AddressInUseError(
                f"{host}:{address.port}: the gRPC {address.purpose} port cannot be had; choose "
                f"another with {address.flag}"
            ) from error
        await self._server.start()
        return f"{host}:{port}"

    def _bind(self, place: str) -> int:
        certificate = self._address.certificate
        if certificate is None:
            return int(self._server.add_insecure_port(place))
        pair = certificate.private_key.read_bytes(), certificate.certificate.read_bytes()
        return int(self._server.add_secure_port(place, grpc.ssl_server_credentials([pair])))

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109 - not a cancellation
        """Take nothing more, and return when what was accepted is answered, or cut off."""
        if self._server is not None:
            await self._server.stop(timeout)


class _Gate(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without the key."""

    def __init__(self, tokens: Tokens, purpose: Purpose) -> None:
        self._tokens = tokens
        self._purpose: Purpose = purpose

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        metadata = dict(details.invocation_metadata or ())
        try:
            self._tokens.check(self._purpose, str(metadata.get("authorization", "")))
        except WrongTokenError as error:
            return _refusing(handler, error)
        return handler


def _refusing(handler: Any, error: WrongTokenError) -> Any:
    """Return a handler of the shape of `handler` that refuses every call."""
    if handler is None:
        return None

    async def refuse(_: Any, context: Any) -> None:
        await context.abort(*explain(error))

    async def refuse_stream(_: Any, context: Any) -> Any:
        await context.abort(*explain(error))
        yield

    return _of_shape(
        handler, refuse_stream if handler.response_streaming else refuse, handler.request_streaming
    )


def _of_shape(handler: Any, behaviour: Any, request_streaming: bool) -> Any:  # noqa: FBT001
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[request_streaming, handler.response_streaming]
    return make(
        behaviour,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _handler(method: Any, behaviour: Any) -> Any:
    """Return grpc's handler of one method of a service."""
    from google.protobuf.message_factory import GetMessageClass  # noqa: PLC0415

    kind = GetMessageClass(method.input_type)
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[method.client_streaming, method.server_streaming]
    return make(
        _with_messages(kind, behaviour, method),
        response_serializer=lambda message: message.SerializeToString(),
    )


def _with_messages(kind: Any, behaviour: Any, method: Any) -> Any:
    """Return `behaviour` for requests that are bytes; what is no message is refused in words."""

    async def read(data: bytes, context: Any) -> Any:
        try:
            return kind.FromString(data)
        except DecodeError:
            refusal = f"The request is no {method.input_type.full_name}."
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal)

    async def read_all(pieces: Any, context: Any) -> Any:
        async for data in pieces:
            yield await read(data, context)

    async def answer(data: bytes, context: Any) -> Any:
        return await behaviour(await read(data, context), context)

    async def stream(data: Any, context: Any) -> Any:
        several = method.client_streaming
        requests = read_all(data, context) if several else await read(data, context)
        async for response in behaviour(requests, context):
            yield response

    return stream if method.server_streaming else answer
