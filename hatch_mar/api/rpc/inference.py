"""`InferenceAPIsService`."""

# ruff: noqa: ANN401, N802 - messages are classes made at run time; methods have the protocol's names

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from hatch_mar.api.rpc.calls import make_request
from hatch_mar.api.rpc.refusals import class_of, code_of, explain
from hatch_mar.api.rpc.schema import message
from hatch_mar.errors import BadRequestError, PredictionFailedError, RequestError
from hatch_mar.serve import Part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hatch_mar.api.health import Readiness
    from hatch_mar.serve import Request, Response, Service

NO_MODEL = "Parameter model_name is required."
NO_SEQUENCE = "Parameter sequenceId is required."
_BAD_REQUEST = "BadRequestException.()"
"""What TorchServe calls the class here."""


class Inference:
    """Answers predictions. What fails before a worker sees it is INTERNAL, as in TorchServe."""

    def __init__(self, service: Service, readiness: Readiness, sequence_header: str) -> None:
        """Predict with `service`; handlers find a sequence's id in `sequence_header`."""
        self._service = service
        self._readiness = readiness
        self._sequence_header = sequence_header

    async def Ping(self, request: Any, context: Any) -> Any:
        """Return what `GET /ping` answers."""
        del request, context
        health = bytes(self._readiness.ping().body).decode().rstrip("\n")
        return message("inference.TorchServeHealthResponse")(health=health)

    async def Predictions(self, request: Any, context: Any) -> Any:
        """Return the prediction, whole even where the handler streams."""
        name, version = await self._target(request, context)
        try:
            response = await self._service.predict(name, version, _make(request, context))
        except RequestError as error:
            await _refuse(context, error)
            raise
        return await _answer(response, context)

    async def StreamPredictions(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Yield the pieces of a prediction."""
        name, version = await self._target(request, context)
        try:
            async for response in self._service.stream(name, version, _make(request, context)):
                yield await _answer(response, context)
        except RequestError as error:
            await _refuse(context, error)

    async def StreamPredictions2(
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        """Yield the predictions for requests of sequences, one after the other.

        What is wrong with one of them is told in its answer's `status`; the stream goes on.
        """
        async for request in requests:
            try:
                async for response in self._continue(request, context):
                    yield _in_sequence(request, prediction=bytes(response.body))
            except RequestError as error:
                yield message("inference.PredictionResponse")(status=_status(error))

    async def _continue(self, request: Any, context: Any) -> AsyncIterator[Response]:
        if not request.model_name:
            raise BadRequestError(NO_MODEL)
        if not request.sequence_id:
            raise BadRequestError(NO_SEQUENCE)
        headers = [(self._sequence_header, request.sequence_id)]
        wish = _make(request, context, headers)
        version = request.model_version or None
        async for response in self._service.stream(request.model_name, version, wish):
            if response.error:
                text = bytes(response.body).decode(errors="replace")
                raise PredictionFailedError(text, status=response.status)
            yield response

    async def _target(self, request: Any, context: Any) -> tuple[str, str | None]:
        if not request.model_name:
            await context.abort(grpc.StatusCode.INTERNAL, f"{NO_MODEL}\n{_BAD_REQUEST}")
        return request.model_name, request.model_version or None


def _make(request: Any, context: Any, headers: Sequence[tuple[str, str]] = ()) -> Request:
    parts = [Part(key, "", value) for key, value in request.input.items()]
    return make_request(context, parts, headers)


async def _answer(response: Response, context: Any) -> Any:
    """Return `response` as a message, or end the call with its error."""
    if response.error:
        text = bytes(response.body).decode(errors="replace")
        kind = class_of(response.error_type)
        await context.abort(code_of(response.status), f"{text}\n{kind}")
    return message("inference.PredictionResponse")(prediction=bytes(response.body))


async def _refuse(context: Any, error: RequestError) -> None:
    await context.abort(grpc.StatusCode.INTERNAL, explain(error)[1])


def _in_sequence(request: Any, **values: Any) -> Any:
    if request.sequence_id:
        values["sequence_id"] = request.sequence_id
    return message("inference.PredictionResponse")(**values)


def _status(error: RequestError) -> Any:
    """Return `error` as TorchServe does here: INTERNAL unless the model answered so."""
    code, text = explain(error)
    if not isinstance(error, PredictionFailedError):
        code = grpc.StatusCode.INTERNAL
    if isinstance(error, BadRequestError):
        text = _BAD_REQUEST
    found = message("google.rpc.Status")(code=code.value[0], message=str(error))
    found.details.add(
        type_url="type.googleapis.com/google.rpc.ErrorInfo",
        value=_error_info(text.rpartition("\n")[2]),
    )
    return found


def _error_info(reason: str) -> bytes:
    """Return a `google.rpc.ErrorInfo` with nothing but its first field, `reason`."""
    data = reason.encode()
    assert len(data) < 128  # noqa: PLR2004 - a length of one byte (protobuf's varint)
    return bytes((0x0A, len(data))) + data
