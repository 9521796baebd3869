"""A runner as TorchServe's configuration describes it."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from hatch_mar.cli.background import tell_parent
from hatch_mar.cli.options import ModelSettings, ServeOptions
from hatch_mar.cli.output import say
from hatch_mar.cli.targets import Target, list_store
from hatch_mar.errors import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hatch_mar.api.listeners import Address
    from hatch_mar.api.rpc.server import RpcAddress
    from hatch_mar.cli.properties import Properties

STARTED = "Model server started."
"""The line that scripts wait for."""
_RENAMED = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)=(?P<what>.+)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PORTS = {"http": 80, "https": 443}


def serve_properties(properties: Properties) -> int:
    """Serve what `properties` say until asked to stop; return the exit status.

    Raises:
        ProblemsError: values that cannot be followed.
        AddressInUseError: a port is somebody else's.
        OSError: an address is not this machine's, or the keys cannot be written.
    """
    from hatch_mar.api.listeners import bind  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.api.tokens import Tokens  # noqa: PLC0415
    from hatch_mar.cli.runner import Runner  # noqa: PLC0415

    problems: list[Problem] = []
    addresses = list(_addresses(properties, problems))
    options = _options(properties, os.environ, problems)
    if problems:
        raise ProblemsError(problems)
    targets = list(_targets(properties))
    sockets = [bind(address) for address in addresses]
    tokens = None
    if not properties.disable_token_authorization:
        lifetime = timedelta(minutes=properties.token_expiration_min)
        tokens = Tokens(Path.cwd(), lifetime=lifetime)
        say(f"token authorization is enabled: the keys are in {tokens.path}")
    tell_parent()
    runner = Runner(
        targets,
        options,
        sockets,
        tokens=tokens,
        on_open=lambda: say(STARTED),
    )
    try:
        return asyncio.run(runner.run())
    finally:
        if tokens is not None:
            tokens.remove()


def _options(
    properties: Properties, environ: Mapping[str, str], problems: list[Problem]
) -> ServeOptions:
    workers = properties.default_workers_per_model
    visible = _environ(properties, environ)
    return ServeOptions(
        environ=visible,
        max_request_size=properties.max_request_size,
        max_response_size=properties.max_response_size,
        model_store=_store(properties),
        enable_model_api=properties.enable_model_api,
        allowed_urls=tuple(filter(None, (properties.allowed_urls or "").split(","))),
        default_workers=_count_cores(visible) if workers is None else workers,
        registered_workers=workers or 0,
        job_queue_size=properties.job_queue_size,
        decode_input_request=properties.decode_input_request,
        limit_max_image_pixels=properties.limit_max_image_pixels,
        service_envelope=properties.service_envelope,
        default_handler=properties.default_service_handler,
        response_timeout=properties.default_response_timeout,
        startup_timeout=properties.default_startup_timeout,
        settings_of_models=dict(_settings_of_models(properties, problems)),
        cors=(
            properties.cors_allowed_origin or "",
            properties.cors_allowed_methods or "",
            properties.cors_allowed_headers or "",
        ),
        open_inference=properties.ts_open_inference_protocol,
        grpc=_rpc_addresses(properties),
        as_torchserve=True,
    )


def _environ(properties: Properties, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what workers may see: without blacklisted names, and with the first GPUs alone."""
    hidden = re.compile(properties.blacklist_env_vars or r"(?!)")
    visible = {name: value for name, value in environ.items() if not hidden.fullmatch(name)}
    for part in ("id", "start", "end"):
        # Handlers look for them there, too. What the file leaves out does not hide a variable.
        name = getattr(properties, f"ts_header_key_sequence_{part}")
        if name != f"ts_request_sequence_{part}":
            visible[f"TS_REQUEST_SEQUENCE_{part.upper()}"] = name
    if properties.number_of_gpu is not None:
        from hatch_mar.serve.devices import discover  # noqa: PLC0415 - see hatch_mar.cli

        devices = discover(visible)[: max(0, properties.number_of_gpu)]
        visible["CUDA_VISIBLE_DEVICES"] = ",".join(device.uuid for device in devices)
    return visible


def _count_cores(environ: Mapping[str, str]) -> int | None:
    """Return how many workers TorchServe starts on a machine without GPUs; None with them."""
    from hatch_mar.serve.devices import discover  # noqa: PLC0415 - see hatch_mar.cli

    return None if discover(environ) else os.cpu_count()


def _store(properties: Properties) -> Path:
    return Path(properties.model_store or "")


def _addresses(properties: Properties, problems: list[Problem]) -> Iterator[Address]:
    """Yield where to listen: purposes that have one address share it."""
    from hatch_mar.api.listeners import Address  # noqa: PLC0415 - see hatch_mar.cli

    found: dict[tuple[str, int], Address] = {}
    for purpose in ("inference", "management", "metrics"):
        key = f"{purpose}_address"
        if purpose == "metrics" and not properties.enable_metrics_api:
            continue
        try:
            host, port = _read_address(getattr(properties, key))
        except ValueError as error:
            problems.append(Problem("config.properties", key, str(error)))
            continue
        place = host, port
        if place in found:
            found[place] = replace(found[place], purposes=(*found[place].purposes, purpose))
        else:
            found[place] = Address(purposes=(purpose,), host=host, port=port, flag=key)
    for address in found.values():
        both = {"inference", "management"} <= set(address.purposes)
        if both and "metrics" not in address.purposes and properties.enable_metrics_api:
            address = replace(address, purposes=(*address.purposes, "metrics"))  # noqa: PLW2901
        yield address


def _rpc_addresses(properties: Properties) -> tuple[RpcAddress, ...]:
    """Return where gRPC is spoken: nowhere without the extra, and then that is said."""
    if find_spec("grpc") is None:
        click.echo("torchserve: gRPC needs an extra: pip install 'hatch-mar[grpc]'", err=True)
        return ()
    from hatch_mar.api.rpc.server import RpcAddress  # noqa: PLC0415 - see hatch_mar.cli

    return (
        RpcAddress(
            purpose="inference",
            host=properties.grpc_inference_address,
            port=properties.grpc_inference_port,
            flag="grpc_inference_port",
        ),
        RpcAddress(
            purpose="management",
            host=properties.grpc_management_address,
            port=properties.grpc_management_port,
            flag="grpc_management_port",
        ),
    )


def _read_address(text: str) -> tuple[str, int]:
    """Return host and port of `http://127.0.0.1:8080`.

    Raises:
        ValueError: it is no such address.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"'{text}' is no address; write it like http://127.0.0.1:8080")
    return parts.hostname, _PORTS[parts.scheme] if port is None else port


def _targets(properties: Properties) -> Iterator[Target]:
    """Yield the models to begin with; whether they are there is found out when they are opened."""
    store = _store(properties)
    texts = [text.strip() for text in (properties.load_models or "").split(",")]
    for text in filter(None, texts):
        if text.lower() == "all":
            yield from list_store(store)
            continue
        found = _RENAMED.fullmatch(text)
        name, what = (found["name"], found["what"]) if found else (None, text)
        if _URL.match(what):
            yield Target(what=what, path=store / what.rpartition("/")[2], name=name, url=what)
        else:
            yield Target(what=what, path=store / what, name=name)


def _settings_of_models(
    properties: Properties, problems: list[Problem]
) -> Iterator[tuple[tuple[str, str], ModelSettings]]:
    """Yield what `models` says, for each (model, version)."""
    for name, versions in json.loads(properties.models or "{}").items():
        if not isinstance(versions, dict):
            problems.append(Problem("config.properties", f"models.{name}", "has no versions"))
            continue
        for version, values in versions.items():
            key = f"models.{name}.{version}"
            if isinstance(values, dict):
                yield (name, version), _model_settings(key, values, problems)
            else:
                problems.append(Problem("config.properties", key, "is no JSON object"))


_NUMBERS: Mapping[str, str] = {
    "minWorkers": "workers",
    "batchSize": "batch_size",
    "maxBatchDelay": "max_batch_delay",
    "responseTimeout": "response_timeout",
    "startupTimeout": "startup_timeout",
}


def _model_settings(key: str, values: Mapping[str, Any], problems: list[Problem]) -> ModelSettings:
    found: dict[str, int] = {}
    for name, field in _NUMBERS.items():
        value = values.get(name)
        if value is None:
            continue
        if type(value) is int and value >= 0:
            found[field] = value
        else:
            message = f"{value!r} is no number of {name}"
            problems.append(Problem("config.properties", f"{key}.{name}", message))
    return ModelSettings(**found)
