"""`config.properties`: what TorchServe's file says, with its own names, types and defaults.

A key that this runner knows and has no use for is accepted, with a line that says so; what is in
nobody's list is accepted too, as TorchServe does, and said as well.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import HatchMarError, Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ENVIRONMENT_SWITCH = "enable_envvars_config"
ENVIRONMENT_PREFIX = "TS_"
_REFERENCE = re.compile(r"\$\$([^$]+)\$\$")
_NUMBER = re.compile(r"[+-]?\d+", re.ASCII)
_SMALLEST, _LARGEST = -(2**31), 2**31 - 1
"""Of Java's `int`."""
_PORT_NUMBERS = range(65_536)
_HEADER_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """Every key that means something here, under its own name."""

    inference_address: str = "http://127.0.0.1:8080"
    management_address: str = "http://127.0.0.1:8081"
    metrics_address: str = "http://127.0.0.1:8082"
    grpc_inference_address: str = "127.0.0.1"
    grpc_management_address: str = "127.0.0.1"
    grpc_inference_port: int = 7070
    grpc_management_port: int = 7071
    enable_grpc_ssl: bool = False
    load_models: str | None = None
    model_store: str | None = None
    model_snapshot: str | None = None
    """JSON: the models that ran when a snapshot was written."""
    models: str | None = None
    """JSON: `{name: {version: {minWorkers, ...}}}`."""
    default_workers_per_model: int | None = None
    job_queue_size: int = 100
    default_response_timeout: int = 120
    """Seconds."""
    default_startup_timeout: int = 120
    """Seconds."""
    unregister_model_timeout: int = 120
    """Seconds."""
    number_of_gpu: int | None = None
    max_request_size: int = 6_553_500
    """Bytes."""
    max_response_size: int = 6_553_500
    """Bytes."""
    decode_input_request: bool = True
    limit_max_image_pixels: bool = True
    service_envelope: str | None = None
    default_service_handler: str | None = None
    install_py_dep_per_model: bool = False
    blacklist_env_vars: str | None = None
    """A regular expression of names that workers must not see."""
    cors_allowed_origin: str | None = None
    cors_allowed_methods: str | None = None
    cors_allowed_headers: str | None = None
    keystore: str | None = None
    keystore_pass: str = "changeit"  # noqa: S105 - TorchServe's default
    keystore_type: str = "PKCS12"
    private_key_file: str | None = None
    certificate_file: str | None = None
    allowed_urls: str | None = None
    """Regular expressions, separated by commas; None: no URL is. TorchServe's default is any."""
    use_env_allowed_urls: bool = False
    disable_token_authorization: bool = False
    token_expiration_min: float = 60.0
    enable_model_api: bool = False
    enable_metrics_api: bool = True
    metrics_mode: str | None = None
    """`log`, `prometheus` or `legacy`; None: this runner's default, `prometheus`."""
    metrics_config: str | None = None
    model_metrics_auto_detect: bool | None = None
    """None: this runner's default, where there is no `metrics_config`."""
    disable_system_metrics: bool = False
    metric_time_interval: int = 60
    """Seconds."""
    enable_envvars_config: bool = False
    ts_open_inference_protocol: bool = False
    ts_header_key_sequence_id: str = "ts_request_sequence_id"
    ts_header_key_sequence_start: str = "ts_request_sequence_start"
    ts_header_key_sequence_end: str = "ts_request_sequence_end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What a file, the command line and the environment come to."""

    properties: Properties
    texts: Mapping[str, str]
    """Every key that was set, as text."""
    remarks: list[str]
    """What has no effect, one line each."""


_NETTY = "there is no Netty here"
_JAVA = "there is no Java here"
_PORTS = "workers are reached through socket pairs, without ports"
WITHOUT_EFFECT: Mapping[str, str] = {
    "async_logging": "logs never block here",
    "cpp_log_config": "there is no C++ backend here",
    "cpu_launcher_args": "start the runner under numactl instead",
    "cpu_launcher_enable": "start the runner under numactl instead",
    "debug": "use --log-level of `hatch-mar serve` instead",
    "grpc_inference_max_connection_age_grace_ms": "connections live as long as their clients",
    "grpc_inference_max_connection_age_ms": "connections live as long as their clients",
    "grpc_management_max_connection_age_grace_ms": "connections live as long as their clients",
    "grpc_management_max_connection_age_ms": "connections live as long as their clients",
    "initial_distribution_port": "torch's launcher finds a free port",
    "initial_worker_port": _PORTS,
    "io_ratio": _NETTY,
    "ipex_enable": "Intel's extension has ended; its speed is in torch",
    "ipex_gpu_enable": "Intel's extension has ended; its speed is in torch",
    "model_server_home": "the runner is where it is installed",
    "netty_client_threads": _NETTY,
    "number_of_netty_threads": _NETTY,
    "plugins_path": "there are no Java plugins here",
    "python": "it is written by snapshots",
    "prefer_direct_buffer": _NETTY,
    "system_metrics_cmd": "the system is measured from within",
    "tsConfigFile": "it is written by snapshots",
    "use_native_io": _NETTY,
    "version": "it is written by snapshots",
    "vmargs": _JAVA,
    "workflow_store": "workflows are not served",
}
"""Keys of TorchServe that change nothing here, and why."""


def read_properties(
    path: Path | None, *, environ: Mapping[str, str], overrides: Mapping[str, str]
) -> Configuration:
    """Return what the file at `path` says.

    `overrides`, from the command line, win over the file; with `enable_envvars_config=true` the
    variables `TS_<KEY>` win over both.

    Raises:
        HatchMarError: the file cannot be read.
        ProblemsError: all values that are none.
    """
    file = str(path) if path is not None else "the command line"
    texts = {**(_load(path) if path is not None else {}), **overrides}
    problems: list[Problem] = []
    texts = {key: _resolve(file, key, text, environ, problems) for key, text in texts.items()}
    if texts.get(ENVIRONMENT_SWITCH, "").strip().lower() == "true":
        texts |= dict(_from_environment(environ))
    if texts.get("use_env_allowed_urls", "").strip().lower() == "true":
        texts["allowed_urls"] = environ.get(f"{ENVIRONMENT_PREFIX}ALLOWED_URLS", "")
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Properties):
        text = texts.get(field.name, "").strip()
        if text:
            try:
                values[field.name] = _parse(field.name, str(field.type), text)
            except ValueError as error:
                problems.append(Problem(file, field.name, str(error)))
    if problems:
        raise ProblemsError(problems)
    return Configuration(
        properties=Properties(**values), texts=texts, remarks=list(_remarks(texts))
    )


def _load(path: Path) -> dict[str, str]:
    import javaproperties  # noqa: PLC0415 - of the extra that serves

    try:
        with path.open("rb") as file:
            return dict(javaproperties.load(file))
    except OSError as error:
        raise HatchMarError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise HatchMarError(f"{path}: is no properties file: {error}") from error


def _resolve(
    file: str, key: str, text: str, environ: Mapping[str, str], problems: list[Problem]
) -> str:
    """Put environment variables in where `text` says `$$NAME$$`."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in environ:
            problems.append(
                Problem(file, key, f"'{found[0]}': there is no variable {name}; set it")
            )
        return environ.get(name, "")

    return _REFERENCE.sub(value, text)


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    names = [field.name for field in dataclasses.fields(Properties)]
    for key in (*names, *WITHOUT_EFFECT):
        bare = key.upper().removeprefix(ENVIRONMENT_PREFIX)
        if f"{ENVIRONMENT_PREFIX}{bare}" in environ:
            yield key, environ[f"{ENVIRONMENT_PREFIX}{bare}"]


def _parse(key: str, kind: str, text: str) -> object:
    """Return the value of `text`; `kind` is the field's annotation.

    Raises:
        ValueError: it is none.
    """
    if kind.startswith("bool"):
        return text.lower() == "true"  # as Java: anything else is false
    if kind.startswith("int"):
        return _parse_number(key, text)
    if kind == "float":
        return _parse_minutes(text)
    if key in ("models", "model_snapshot"):
        _check_json(text)
    if key.startswith("cors_") and not _HEADER_VALUE.fullmatch(text):
        raise ValueError(f"{text!r} cannot stand in a header; use visible Latin-1 characters")
    if key == "metrics_mode" and text.lower() not in ("log", "prometheus", "legacy"):
        raise ValueError(f"'{text}' is no mode; choose log, prometheus or legacy")
    if key in ("allowed_urls", "blacklist_env_vars"):
        for pattern in text.split(",") if key == "allowed_urls" else [text]:
            _check_pattern(pattern)
    return text


def _parse_number(key: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"'{text}' is not a whole number")
    number = int(text)
    if not _SMALLEST <= number <= _LARGEST:
        raise ValueError(f"'{text}' is beyond what fits in 32 bits")
    if key.endswith("_port") and number not in _PORT_NUMBERS:
        raise ValueError(f"'{text}' is no port; choose one of 0 to 65535, 0 for any free one")
    return number


def _parse_minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a number") from None
    if not abs(minutes) <= _LARGEST:  # nor NaN
        raise ValueError(f"'{text}' is beyond what fits in 32 bits")
    return minutes


def _check_json(text: str) -> None:
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - the message is for the operator


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"'{pattern}' is not a regular expression: {error}") from None


def _remarks(texts: Mapping[str, str]) -> Iterator[str]:
    known = {field.name for field in dataclasses.fields(Properties)}
    for key in texts:
        if key in WITHOUT_EFFECT:
            yield f"{key} has no effect: {WITHOUT_EFFECT[key]}"
        elif key not in known:
            yield f"{key} has no effect: neither TorchServe nor hatch-mar knows it"
