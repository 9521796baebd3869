"""A runner as TorchServe's configuration describes it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import click

from hatch_mar.cli.options import ModelSettings, ServeOptions
from hatch_mar.cli.output import say
from hatch_mar.cli.targets import Target, list_store
from hatch_mar.cli.torchserve.background import tell_parent
from hatch_mar.cli.torchserve.snapshots import Snapshots, snapshot_directory
from hatch_mar.errors import HatchMarError, Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hatch_mar.api.listeners import Address, Certificate
    from hatch_mar.api.rpc.server import RpcAddress
    from hatch_mar.api.tokens import Tokens
    from hatch_mar.cli.torchserve.properties import Configuration, Properties
    from hatch_mar.serve.metrics.config import MetricsConfig
    from hatch_mar.serve.metrics.store import Mode

STARTED = "Model server started."
"""The line that scripts wait for."""
_RENAMED = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)=(?P<what>.+)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PORTS = {"http": 80, "https": 443}


def serve_configuration(configuration: Configuration, *, snapshots: bool) -> int:
    """Serve what `configuration` says until asked to stop; return the exit status.

    With `snapshots`, what is served is written down at every change.

    Raises:
        ProblemsError: values that cannot be followed.
        AddressInUseError: a port is somebody else's.
        OSError: an address is not this machine's, or the keys cannot be written.
    """
    from hatch_mar.api.listeners import bind  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.cli.runner import Runner  # noqa: PLC0415

    properties = configuration.properties
    with tempfile.TemporaryDirectory(prefix="hatch-mar-tls-") as scratch:
        problems: list[Problem] = []
        certificate = _certificate(properties, Path(scratch))
        addresses = list(_addresses(properties, certificate, problems))
        options = _options(properties, os.environ, problems)
        if problems:
            raise ProblemsError(problems)
        options = replace(options, grpc=_rpc_addresses(properties, certificate))
        sockets = [bind(address) for address in addresses]
        with _keys(properties) as tokens:
            tell_parent()
            runner = Runner(
                list(_targets(properties)),
                options,
                sockets,
                tokens=tokens,
                snapshots=Snapshots(snapshot_directory(), configuration.texts)
                if snapshots
                else None,
                on_open=lambda: say(STARTED),
            )
            return asyncio.run(runner.run())


@contextmanager
def _keys(properties: Properties) -> Iterator[Tokens | None]:
    """Yield the keys that requests need, if they need any; their file goes with the block."""
    if properties.disable_token_authorization:
        yield None
        return
    from hatch_mar.api.tokens import Tokens  # noqa: PLC0415 - see hatch_mar.cli

    tokens = Tokens(Path.cwd(), lifetime=timedelta(minutes=properties.token_expiration_min))
    say(f"token authorization is enabled: the keys are in {tokens.path}")
    try:
        yield tokens
    finally:
        tokens.remove()


def _certificate(properties: Properties, scratch: Path) -> Certificate | None:
    """Return what encrypted ports show, if there are any."""
    addresses = (properties.inference_address, properties.management_address)
    encrypted = any(text.startswith("https:") for text in (*addresses, properties.metrics_address))
    if not encrypted and not properties.enable_grpc_ssl:
        return None
    from hatch_mar.cli.torchserve.certificates import find_certificate  # noqa: PLC0415 - see hatch_mar.cli

    return find_certificate(properties, scratch)


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
        unregister_timeout=properties.unregister_model_timeout,
        job_queue_size=properties.job_queue_size,
        decode_input_request=properties.decode_input_request,
        limit_max_image_pixels=properties.limit_max_image_pixels,
        service_envelope=properties.service_envelope,
        default_handler=properties.default_service_handler,
        install_requirements=properties.install_py_dep_per_model,
        response_timeout=properties.default_response_timeout,
        startup_timeout=properties.default_startup_timeout,
        settings_of_models=dict(_settings_of_models(properties, problems)),
        cors=(
            properties.cors_allowed_origin or "",
            properties.cors_allowed_methods or "",
            properties.cors_allowed_headers or "",
        ),
        open_inference=properties.ts_open_inference_protocol,
        metrics_mode=cast("Mode", (properties.metrics_mode or "prometheus").lower()),
        metrics_config=_metrics_config(properties, problems),
        metrics_auto_detect=properties.model_metrics_auto_detect,
        system_metrics=not properties.disable_system_metrics,
        metrics_interval=max(properties.metric_time_interval, 1),
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
        from hatch_mar.serve.devices.discovery import discover  # noqa: PLC0415 - see hatch_mar.cli

        devices = discover(visible)[: max(0, properties.number_of_gpu)]
        visible["CUDA_VISIBLE_DEVICES"] = ",".join(device.uuid for device in devices)
    return visible


def _count_cores(environ: Mapping[str, str]) -> int | None:
    """Return how many workers TorchServe starts on a machine without GPUs; None with them."""
    from hatch_mar.serve.devices.discovery import discover  # noqa: PLC0415 - see hatch_mar.cli

    return None if discover(environ) else os.cpu_count()


def _metrics_config(properties: Properties, problems: list[Problem]) -> MetricsConfig | None:
    from hatch_mar.serve.metrics.config import read_metrics_config  # noqa: PLC0415 - see cli

    if not properties.metrics_config:
        return None
    try:
        return read_metrics_config(Path(properties.metrics_config))
    except ProblemsError as error:
        problems += error.problems
    except HatchMarError as error:
        problems.append(Problem("config.properties", "metrics_config", str(error)))
    return None


def _store(properties: Properties) -> Path:
    return Path(properties.model_store or "")


def _addresses(
    properties: Properties, certificate: Certificate | None, problems: list[Problem]
) -> Iterator[Address]:
    """Yield where to listen: purposes that have one address share it."""
    from hatch_mar.api.listeners import Address  # noqa: PLC0415 - see hatch_mar.cli

    found: dict[tuple[str, int], Address] = {}
    for purpose in ("inference", "management", "metrics"):
        key = f"{purpose}_address"
        if purpose == "metrics" and not properties.enable_metrics_api:
            continue
        try:
            scheme, host, port = _read_address(getattr(properties, key))
        except ValueError as error:
            problems.append(Problem("config.properties", key, str(error)))
            continue
        place = host, port
        if place in found:
            found[place] = replace(found[place], purposes=(*found[place].purposes, purpose))
        else:
            shown = certificate if scheme == "https" else None
            found[place] = Address(
                purposes=(purpose,), host=host, port=port, flag=key, certificate=shown
            )
    for address in found.values():
        both = {"inference", "management"} <= set(address.purposes)
        if both and "metrics" not in address.purposes and properties.enable_metrics_api:
            address = replace(address, purposes=(*address.purposes, "metrics"))  # noqa: PLW2901
        yield address


def _rpc_addresses(
    properties: Properties, certificate: Certificate | None
) -> tuple[RpcAddress, ...]:
    """Return where gRPC is spoken: nowhere without the extra, and then that is said."""
    if find_spec("grpc") is None:
        click.echo("torchserve: gRPC needs an extra: pip install 'hatch-mar[grpc]'", err=True)
        return ()
    from hatch_mar.api.rpc.server import RpcAddress  # noqa: PLC0415 - see hatch_mar.cli

    shown = certificate if properties.enable_grpc_ssl else None
    return (
        RpcAddress(
            purpose="inference",
            host=properties.grpc_inference_address,
            port=properties.grpc_inference_port,
            flag="grpc_inference_port",
            certificate=shown,
        ),
        RpcAddress(
            purpose="management",
            host=properties.grpc_management_address,
            port=properties.grpc_management_port,
            flag="grpc_management_port",
            certificate=shown,
        ),
    )


def _read_address(text: str) -> tuple[str, str, int]:
    """Return scheme, host and port of `http://127.0.0.1:8080`.

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
    return parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port


def _targets(properties: Properties) -> Iterator[Target]:
    """Yield the models to begin with; whether they are there is found out when they are opened.

    A snapshot's models go before all others; the default version of each comes first.
    """
    from hatch_mar.weights.uri import redact  # noqa: PLC0415 - see hatch_mar.cli

    store = _store(properties)
    if properties.model_snapshot is not None:
        for model, versions in _snapshot(properties).items():
            ordered = sorted(versions.values(), key=lambda each: not each.get("defaultVersion"))
            for values in ordered:
                archive = values["marName"]
                yield Target(what=archive, path=store / archive, name=model)
        return
    texts = [text.strip() for text in (properties.load_models or "").split(",")]
    for text in filter(None, texts):
        if text.lower() == "all":
            yield from list_store(store)
            continue
        found = _RENAMED.fullmatch(text)
        name, what = (found["name"], found["what"]) if found else (None, text)
        if _URL.match(what):
            # The name that it is fetched under: without the signature that some queries hold.
            yield Target(what=what, path=store / Path(redact(what)).name, name=name, url=what)
        else:
            yield Target(what=what, path=store / what, name=name)


def _settings_of_models(
    properties: Properties, problems: list[Problem]
) -> Iterator[tuple[tuple[str, str], ModelSettings]]:
    """Yield what `models`, or a snapshot, says of each (model, version)."""
    wins = properties.model_snapshot is not None
    told = _snapshot(properties) if wins else json.loads(properties.models or "{}")
    for name, versions in told.items():
        if not isinstance(versions, dict):
            problems.append(Problem("config.properties", f"models.{name}", "has no versions"))
            continue
        for version, values in versions.items():
            key = f"models.{name}.{version}"
            if not isinstance(values, dict):
                problems.append(Problem("config.properties", key, "is no JSON object"))
                continue
            if wins and not _is_file_name(values.get("marName")):
                message = f"{values.get('marName')!r} is no file of the model store"
                problems.append(Problem("config.properties", f"{key}.marName", message))
            settings = _model_settings(key, values, problems)
            yield (name, version), replace(settings, wins=wins)


def _is_file_name(value: object) -> bool:
    """Say whether `value` names an entry of a directory: nothing outside it, nor itself."""
    if not isinstance(value, str) or value in ("", ".", ".."):
        return False
    return value == Path(value).name and "\0" not in value


def _snapshot(properties: Properties) -> dict[str, Any]:
    """Return the models of a snapshot, their versions and the values of each."""
    models = json.loads(properties.model_snapshot or "{}").get("models")
    return models if isinstance(models, dict) else {}


_NUMBERS: Mapping[str, str] = {
    "minWorkers": "workers",
    "maxWorkers": "max_workers",
    "batchSize": "batch_size",
    "maxBatchDelay": "max_batch_delay",
    "responseTimeout": "response_timeout",
    "startupTimeout": "startup_timeout",
}


def _model_settings(key: str, values: Mapping[str, Any], problems: list[Problem]) -> ModelSettings:
    found: dict[str, Any] = {}
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
