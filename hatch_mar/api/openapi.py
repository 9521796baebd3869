"""The API described by itself: `OPTIONS` and `/api-description`, as OpenAPI 3.0.1.

TorchServe's structure (paths, operation ids, parameters, types of bodies), in our own words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION = "0.12.0"
"""The TorchServe whose API this is."""
JSON, ANYTHING = "application/json", "*/*"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_PHRASES = {
    200: "OK",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def describe_api(*, inference: bool, metrics: bool) -> dict[str, Any]:
    """Return the description of a port that serves these parts of the API."""
    paths: dict[str, Any] = {
        "/": {"options": _operation("apiDescription", "This description.", answer=_OBJECT)}
    }
    if inference:
        paths |= _inference_paths()
    described = _operation("api-description", "This description.", answer=_OBJECT)
    paths["/api-description"] = {"get": described}
    if metrics:
        paths["/metrics"] = {"get": _metrics_operation()}
    return {
        "openapi": "3.0.1",
        "info": {"title": "TorchServe APIs", "version": VERSION},
        "paths": paths,
    }


def describe_model(name: str) -> dict[str, Any]:
    """Return the description of a model's entry points; `/prediction/` is TorchServe's spelling."""
    entry = {
        "post": {
            "description": f"Ask the model {name!r}.",
            "operationId": name,
            "parameters": [],
            "responses": {"200": {"description": "OK"}, "500": _response(500, JSON, _ERROR)},
        }
    }
    paths = (
        f"/prediction/{name}",
        "/v1/models/{model_name}:predict",
        "/v2/models/{model_name}/infer",
    )
    return {
        "openapi": "3.0.1",
        "info": {"title": f"RESTful API for: {name}", "version": "1.0.0"},
        "paths": dict.fromkeys(paths, entry),
    }


_OBJECT = {"type": "object"}
_TEXT = {"type": "string"}
_ERROR = {
    "type": "object",
    "required": ["code", "type", "message"],
    "properties": {"code": {"type": "integer"}, "type": _TEXT, "message": _TEXT},
}


def _inference_paths() -> dict[str, Any]:
    named = [_parameter("model_name", "path", "Name of a model.")]
    versioned = [*named, _parameter("model_version", "path", "One of its versions.")]
    health = {"type": "object", "required": ["status"], "properties": {"status": _TEXT}}
    predict = {"post": _predict_operation("predictions", named)}
    return {
        "/ping": {"get": _operation("ping", "Whether the models are healthy.", answer=health)},
        "/v1/models/{model_name}:predict": predict,
        "/v2/models/{model_name}/infer": predict,
        "/predictions/{model_name}": predict,
        "/predictions/{model_name}/{model_version}": {
            "post": _predict_operation("version_predictions", versioned)
        },
    }


def _predict_operation(ident: str, parameters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    body = {"description": "What the handler expects.", "content": {ANYTHING: {"schema": _TEXT}}}
    return {
        "description": "Ask a model.",
        "operationId": ident,
        "parameters": list(parameters),
        "requestBody": {**body, "required": True},
        "responses": {
            "200": _response(200, ANYTHING, _TEXT),
            **{str(status): _response(status, JSON, _ERROR) for status in (404, 500, 503)},
        },
    }


def _metrics_operation() -> dict[str, Any]:
    names = _parameter("name[]", "query", "A metric to return, and no others.", required=False)
    operation = _operation("metrics", "Metrics for Prometheus.", answer=_TEXT, kind=_METRICS)
    return {**operation, "parameters": [names]}


def _operation(
    ident: str, description: str, *, answer: Mapping[str, Any], kind: str = JSON
) -> dict[str, Any]:
    return {
        "description": description,
        "operationId": ident,
        "parameters": [],
        "responses": {"200": _response(200, kind, answer), "500": _response(500, JSON, _ERROR)},
    }


def _response(status: int, kind: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": _PHRASES[status], "content": {kind: {"schema": schema}}}


def _parameter(name: str, place: str, description: str, *, required: bool = True) -> dict[str, Any]:
    return {
        "in": place,
        "name": name,
        "description": description,
        "required": required,
        "schema": _TEXT,
    }
