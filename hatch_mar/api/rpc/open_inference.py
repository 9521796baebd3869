"""`GRPCInferenceService`: the open inference protocol, for handlers that speak KServe v2."""

# ruff: noqa: ANN401, N802 - messages are classes made at run time; methods have the protocol's names

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import grpc

from hatch_mar.api.rpc.calls import make_request
from hatch_mar.api.rpc.refusals import class_of, code_of, explain
from hatch_mar.api.rpc.schema import message
from hatch_mar.errors import RequestError
from hatch_mar.serve import Part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.serve import Response, Service

_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where the values of a datatype are (Open Inference Protocol, tensor contents)."""


_NO_NAME = "Parameter {} is required.\nBadRequestException.()"


class OpenInference:
    """Answers KServe v2."""

    def __init__(self, service: Service) -> None:
        """Answer with `service`."""
        self._service = service

    async def ServerLive(self, request: Any, context: Any) -> Any:
        """Say yes: somebody answers."""
        del request, context
        return message("openinference.ServerLiveResponse")(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        """Say whether every model is ready."""
        del request, context
        ready = self._service.health().ready
        return message("openinference.ServerReadyResponse")(ready=ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Say whether a version of a model is ready."""
        version = await self._version(request, context)
        ready = self._service.health().models[request.name][version].ready
        return message("openinference.ModelReadyResponse")(ready=ready)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """Return name and version: what a handler takes and gives is its own business."""
        version = await self._version(request, context)
        return message("openinference.ModelMetadataResponse")(name=request.name, versions=[version])

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Give the handler a body of KServe v2 in JSON, and read its answer as one."""
        body = json.dumps(_as_json(request)).encode()
        wish = make_request(context, [Part("body", "application/json", body)])
        if not request.model_name:
            await context.abort(grpc.StatusCode.INTERNAL, _NO_NAME.format("model_name"))
        version = request.model_version or None
        try:
            response = await self._service.predict(request.model_name, version, wish)
        except RequestError as error:
            await context.abort(grpc.StatusCode.INTERNAL, explain(error)[1])
            raise
        return await _read(response, context)

    async def _version(self, request: Any, context: Any) -> str:
        if not request.name:
            await context.abort(grpc.StatusCode.INTERNAL, _NO_NAME.format("name"))
        try:
            default, _ = self._service.versions(request.name, request.version or None)
        except RequestError as error:
            await context.abort(*explain(error))
            raise
        return request.version or default


def _as_json(request: Any) -> dict[str, Any]:
    """Return the body as TorchServe writes it: parameters and raw contents are left out."""
    inputs = []
    for tensor in request.inputs:
        found: dict[str, Any] = {"shape": list(tensor.shape)}
        field = _CONTENTS.get(tensor.datatype)
        values = list(getattr(tensor.contents, field)) if field else []
        if values:
            is_bytes = tensor.datatype == "BYTES"
            found["data"] = [_encode(value) for value in values] if is_bytes else values
        inputs.append({**found, "datatype": tensor.datatype, "name": tensor.name})
    return {"model_name": request.model_name, "inputs": inputs, "id": request.id}


async def _read(response: Response, context: Any) -> Any:
    """Return a handler's answer as a message, or end the call with its error."""
    text = bytes(response.body).decode(errors="replace")
    if response.error:
        kind = class_of(response.error_type)
        await context.abort(code_of(response.status), f"{text}\n{kind}")
    try:
        return _parse(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        await context.abort(
            grpc.StatusCode.INTERNAL,
            f"The handler's answer is not one of KServe v2: {error}\n"
            f"{class_of('InternalServerException')}",
        )
        raise


def _parse(value: Any) -> Any:
    found = message("openinference.ModelInferResponse")(
        model_name=value["model_name"],
        model_version=str(value.get("model_version") or ""),
        id=str(value.get("id") or ""),
    )
    for output in value["outputs"]:
        tensor = found.outputs.add(
            name=output["name"], datatype=output["datatype"], shape=output["shape"]
        )
        field = _CONTENTS[output["datatype"]]
        values = output["data"]
        if output["datatype"] == "BYTES":
            values = [str(each).encode() for each in values]
        getattr(tensor.contents, field).extend(values)
    return found


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()
