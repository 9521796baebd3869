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
    202: "Accepted",
    210: "Partial Success",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def describe_api(*, inference: bool, management: bool = False, metrics: bool) -> dict[str, Any]:
    """Return the description of a port that serves these parts of the API."""
    paths: dict[str, Any] = {
        "/": {"options": _operation("apiDescription", "This description.", answer=_OBJECT)}
    }
    if inference:
        paths |= _inference_paths()
    if management:
        paths |= _management_paths()
    described = _operation("api-description", "This description.", answer=_OBJECT)
    paths["/api-description"] = {"get": described}
    if metrics:
        paths["/metrics"] = {"get": _metrics_operation()}
    return {
        "openapi": "3.0.1",
        "info": {"title": "TorchServe APIs", "version": VERSION},
        "paths": paths,
    }


def describe_management(name: str) -> dict[str, Any]:
    """Return the description of what can be done with a model at the management port."""
    paths = _management_paths()
    del paths["/models"]
    return {
        "openapi": "3.0.1",
        "info": {"title": f"RESTful Management API for: {name}", "version": VERSION},
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


def _management_paths() -> dict[str, Any]:
    named = [_parameter("model_name", "path", "Name of a model.")]
    versioned = [*named, _parameter("model_version", "path", "One of its versions.")]
    default = _managing("setDefault", "Let paths without a version lead here.", (200, 404, 500))
    return {
        "/models": {
            "get": _managing("listModels", "Models, in pages.", (200, 500), _PAGE),
            "post": _managing(
                "registerModel",
                "Serve one more model.",
                (200, 202, 210, 400, 404, 409, 500),
                _REGISTRATION,
            ),
        },
        "/models/{model_name}": _managing_one("", named),
        "/models/{model_name}/{model_version}": _managing_one("version_", versioned),
        "/models/{model_name}/batching": _explaining("", named),
        "/models/{model_name}/{model_version}/batching": _explaining("version_", versioned),
        "/models/{model_name}/{model_version}/set-default": {
            "put": {**default, "parameters": versioned}
        },
    }


def _explaining(prefix: str, place: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    operation = _managing(
        f"{prefix}explainBatching", "Why batches have the size that they have.", (200, 404, 500)
    )
    return {"get": {**operation, "parameters": place}}


def _managing_one(prefix: str, place: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what can be done with one model, which the parameters `place` name."""
    operations = {
        "get": _managing("describeModel", "How a model is doing.", (200, 404, 500)),
        "put": _managing(
            "setAutoScale",
            "Say how many workers there are.",
            (200, 202, 210, 400, 404, 500),
            (*_SCALE, *_PATIENCE),
        ),
        "delete": _managing(
            "unregisterModel", "Serve a model no more.", (200, 202, 404, 408, 500), _PATIENCE
        ),
    }
    return {
        method: {
            **operation,
            "operationId": prefix + operation["operationId"],
            "parameters": [*place, *operation["parameters"]],
        }
        for method, operation in operations.items()
    }


def _managing(
    ident: str,
    description: str,
    statuses: Sequence[int],
    parameters: Sequence[tuple[str, str, str, str | None]] = (),
) -> dict[str, Any]:
    return {
        "description": description,
        "operationId": ident,
        "parameters": [_query(*parameter) for parameter in parameters],
        "responses": {
            str(status): _response(status, JSON, _OBJECT if status < _FIRST_ERROR else _ERROR)
            for status in statuses
        },
    }


_FIRST_ERROR = 300
_PAGE = (
    ("limit", "integer", "How many of them.", "100"),
    ("next_page_token", "string", "Where the last page said that the next one begins.", None),
)
_REGISTRATION = (
    ("url", "string", "The archive: in the model store, or elsewhere if that is allowed.", ""),
    ("model_name", "string", "Another name for it.", None),
    ("handler", "string", "Another handler.", None),
    ("runtime", "string", "Its runtime.", None),
    ("batch_size", "integer", "Requests that are answered together.", "1"),
    ("max_batch_delay", "integer", "Milliseconds to wait for a batch to fill.", "0"),
    ("response_timeout", "integer", "Seconds that a batch may take.", "120"),
    ("startup_timeout", "integer", "Seconds that loading may take.", "120"),
    ("initial_workers", "integer", "How many workers to begin with.", "0"),
    ("synchronous", "boolean", "Whether to wait for the workers.", "true"),
    ("s3_sse_kms", "boolean", "Without effect.", "false"),
)
_SCALE = (
    ("min_worker", "integer", "The fewest workers.", "1"),
    ("max_worker", "integer", "The most workers.", "1"),
    ("number_gpu", "integer", "Without effect.", "0"),
)
_PATIENCE = (
    ("synchronous", "boolean", "Whether to wait until it is done.", "false"),
    ("timeout", "integer", "Without effect.", "-1"),
)
"""Parameters of the query: name, type, description, and default. An empty one is required."""


def _query(name: str, kind: str, description: str, default: str | None) -> dict[str, Any]:
    schema = {"type": kind, **({"default": default} if default else {})}
    found = _parameter(name, "query", description, required=default == "")
    return {**found, "schema": schema}


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
