"""The options that `hatch-mar serve` and every `serve-<name>` share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from hatch_mar.errors import HatchMarError, UnguardedManagementError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hatch_mar.api.listeners import Address
    from hatch_mar.api.rpc.server import Purpose, RpcAddress
    from hatch_mar.serve import Deployment
    from hatch_mar.serve.metrics.config import MetricsConfig
    from hatch_mar.serve.metrics.store import Mode

LOOPBACK = "127.0.0.1"
DEFAULTPORT = 8080
_DEVICE = re.compile(r"(?P<type>auto|cpu|gpu|cuda)?(?::?(?P<ids>\d+(?:,\d+)*))?")

Device = Literal["auto", "cpu", "gpu"]
LogFormat = Literal["text", "json"]
DeviceChoice = tuple[Device, tuple[int, ...] | None]
"""The kind of device, and the numbers of the wanted ones; None: all."""
_KINDS: dict[str, Device] = {"auto": "auto", "cpu": "cpu", "gpu": "gpu", "cuda": "gpu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What `models` of config.properties, or a snapshot, says of one version of a model."""

    workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay: int | None = None
    """Milliseconds."""
    response_timeout: int | None = None
    """Seconds."""
    startup_timeout: int | None = None
    """Seconds."""
    wins: bool = False
    """Whether it goes before the archive's own model-config.yaml, timeouts excepted: a snapshot's
    values are what an operator has made of that."""

    def lay_over(self, deployment: Deployment) -> Deployment:
        """Return `deployment` with these values, where its own model-config.yaml says nothing.

        As in TorchServe, timeouts are the archive's own matter once it has such a file.
        """
        config = deployment.config
        wanted: dict[str, int | None] = {}
        if self.wins or "batchSize" not in config.raw:
            wanted["batch_size"] = self.batch_size
        if self.wins or "maxBatchDelay" not in config.raw:
            wanted["max_batch_delay"] = self.max_batch_delay
        if self.wins or config.min_workers is None:
            wanted["max_workers"] = self.max_workers
        if not config.raw:
            wanted["response_timeout"] = self.response_timeout
            wanted["startup_timeout"] = self.startup_timeout
        changes: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
        own = config.min_workers is not None and not self.wins
        workers = deployment.workers if own else self.workers
        return replace(deployment, config=replace(config, **changes), workers=workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Everything the operator said on the command line, except what to serve."""

    host: str = LOOPBACK
    port: int = DEFAULTPORT
    """Of inference; 0 lets the system choose every port."""
    management_host: str = LOOPBACK
    management_port: int | None = None
    """None: the next one after `port` under `hatch-mar serve`, none at all under `serve-<name>`."""
    metrics_port: int | None = None
    """None: the one after that, or inference's own under `serve-<name>`."""
    device: DeviceChoice = ("auto", None)
    workers: int | None = None
    batch_size: int | None = None
    install_hooks: bool = True
    install_requirements: bool = False
    """Whether models get what their requirements.txt asks for, in environments of their own."""
    access_log: bool = True
    max_request_size: int = 6_553_500
    max_response_size: int = 6_553_500
    drain_timeout: float = 25.0
    """Seconds that accepted requests have to be answered in, once asked to stop."""
    model_store: Path | None = None
    """Where models that are registered while the runner runs are found."""
    enable_model_api: bool = False
    """Whether models may be registered and unregistered while the runner runs."""
    allowed_urls: tuple[str, ...] = ()
    """Regular expressions of the URLs that they may be fetched from."""
    default_workers: int | None = None
    """Workers of a model of which nobody says how many; None: one per GPU, or one."""
    unregister_timeout: int | None = None
    """Seconds that requests of a model that is unregistered have; None: its `responseTimeout`."""
    registered_workers: int = 0
    """The same for models that are registered while the runner runs."""
    job_queue_size: int = 100
    decode_input_request: bool = True
    limit_max_image_pixels: bool = True
    service_envelope: str | None = None
    default_handler: str | None = None
    """Of archives that name none."""
    response_timeout: int | None = None
    """Seconds, for archives without a config file."""
    startup_timeout: int | None = None
    """Seconds, for archives without a config file."""
    settings_of_models: Mapping[tuple[str, str], ModelSettings] = field(default_factory=dict)
    """What the operator said of single (model, version)s."""
    grpc: tuple[RpcAddress, ...] = ()
    """Where gRPC is spoken."""
    environ: Mapping[str, str] | None = None
    """What workers see of the environment; None: the runner's own."""
    cors: tuple[str, str, str] = ("", "", "")
    """Origin, methods and headers that pages of other origins may use; no origin: none."""
    open_inference: bool = False
    """Whether KServe V2's own routes are served."""
    metrics_mode: Mode = "prometheus"
    metrics_config: MetricsConfig | None = None
    """Of `metrics.yaml`; None: TorchServe's own metrics, and all that handlers report."""
    metrics_auto_detect: bool | None = None
    """Whether what `metrics.yaml` does not have is published for handlers; None: without one."""
    system_metrics: bool = True
    metrics_interval: float = 60.0
    """Seconds between two lines about the machine, where metrics are logged."""
    log_format: LogFormat = "text"
    log_level: str = "warning"
    """Of the runner's own log."""
    as_torchserve: bool = False
    """Whether to behave where TorchServe does otherwise: a model that fails stops nothing."""

    @property
    def detects_metrics(self) -> bool:
        """Whether handlers' metrics are published that nobody has declared."""
        if self.metrics_auto_detect is None:
            return self.metrics_config is None
        return self.metrics_auto_detect


def read_device(ctx: click.Context, param: click.Parameter, value: str) -> DeviceChoice:
    """Return the kind and the numbers that `--device` asks for.

    Raises:
        click.BadParameter: it is neither a kind of device nor a list of numbers.
    """
    found = _DEVICE.fullmatch(value)
    if not (found and value) or (found["ids"] and found["type"] in ("auto", "cpu")):
        raise click.BadParameter(
            f"{value!r}: must be cpu, gpu, auto, or numbers such as 0,1", ctx, param
        )
    if found["ids"]:
        return "gpu", tuple(int(number) for number in found["ids"].split(","))
    return _KINDS[found["type"]], None


def read_patterns(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Return `values`, which are regular expressions.

    Raises:
        click.BadParameter: one of them is not.
    """
    for value in values:
        try:
            re.compile(value)
        except re.error as error:
            raise click.BadParameter(
                f"{value!r} is not a regular expression: {error}", ctx, param
            ) from error
    return values


def read_metrics(
    ctx: click.Context,  # noqa: ARG001 - as click calls it
    param: click.Parameter,  # noqa: ARG001
    value: Path | None,
) -> MetricsConfig | None:
    """Return what the `metrics.yaml` at `value` says.

    Raises:
        HatchMarError: it cannot be read.
        ProblemsError: everything in it that is wrong.
    """
    if value is None:
        return None
    from hatch_mar.serve.metrics.config import read_metrics_config  # noqa: PLC0415 - see cli

    return read_metrics_config(value)


_LASTPORT = 65_535
PORT = click.IntRange(0, _LASTPORT)
_COUNT = click.IntRange(min=1)
_OPTIONS = (
    click.option("--host", default=LOOPBACK, show_default=True, help="Address to listen on."),
    click.option(
        "--port",
        type=PORT,
        default=DEFAULTPORT,
        show_default=True,
        help="Port of the inference API; 0 for any free ones.",
    ),
    click.option(
        "--management-host",
        default=LOOPBACK,
        show_default=True,
        help="Address of the management API; off loopback it needs HATCH_MAR_MANAGEMENT_TOKEN.",
    ),
    click.option("--management-port", type=PORT, help="Port of the management API."),
    click.option("--metrics-port", type=PORT, help="Port of the metrics API."),
    click.option(
        "--device",
        callback=read_device,
        default="auto",
        show_default=True,
        help="cpu, gpu, or numbers of GPUs such as 0,1.",
    ),
    click.option("--workers", type=_COUNT, help="Workers per model; one per GPU, or one."),
    click.option("--batch-size", type=_COUNT, help="Overrules batchSize of model-config.yaml."),
    click.option(
        "--install-hooks/--no-install-hooks",
        default=True,
        help="Whether install_packages and unpack_dependencies of a handler may run.",
    ),
    click.option(
        "--install-requirements",
        is_flag=True,
        help="Install what a model's requirements.txt asks for and the runner does not have.",
    ),
    click.option(
        "--access-log/--no-access-log", default=True, help="Whether each answer gets a line."
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Lines for people, or a JSON object each.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="warning",
        show_default=True,
        help="From which level on the runner logs.",
    ),
    click.option(
        "--metrics-mode",
        type=click.Choice(["prometheus", "log", "legacy"]),
        default="prometheus",
        show_default=True,
        help="Where metrics are: at /metrics, in the log, or TorchServe's mixture of both.",
    ),
    click.option(
        "--metrics-config",
        type=click.Path(path_type=Path),
        callback=read_metrics,
        metavar="FILE",
        help="TorchServe's metrics.yaml: which metrics there are.",
    ),
    click.option("--max-request-size", type=_COUNT, default=6_553_500, help="Bytes of a body."),
    click.option("--max-response-size", type=_COUNT, default=6_553_500, help="Bytes of a body."),
    click.option(
        "--drain-timeout",
        type=click.FloatRange(min=0),
        default=25.0,
        show_default=True,
        help="Seconds to answer what was accepted, once asked to stop.",
    ),
)


def serving_options(function: Callable[..., object]) -> Callable[..., object]:
    """Give a command every option of `ServeOptions`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def list_addresses(
    options: ServeOptions, environ: Mapping[str, str], *, separate: bool
) -> list[Address]:
    """Return where to listen: three ports as TorchServe if `separate`, else one and what was named.

    Purposes that share host and port share a listener.

    Raises:
        UnguardedManagementError: management off loopback, without a token to guard it.
    """
    from hatch_mar.api.guard import TOKEN_VARIABLE, is_loopback  # noqa: PLC0415 - see cli
    from hatch_mar.api.listeners import Address  # noqa: PLC0415 - the same

    port, management, metrics = options.port, options.management_port, options.metrics_port
    if separate:
        management = _next(port, 1) if management is None else management
        metrics = _next(port, 2) if metrics is None else metrics
    wanted = [("inference", options.host, port, "--port")]
    if management is not None:
        if not (is_loopback(options.management_host) or environ.get(TOKEN_VARIABLE)):
            raise UnguardedManagementError(
                f"--management-host {options.management_host}: whoever reaches it could manage "
                f"this runner; set {TOKEN_VARIABLE}"
            )
        wanted.append(("management", options.management_host, management, "--management-port"))
    if metrics is None:
        wanted.append(("metrics", options.host, port, "--port"))
    else:
        wanted.append(("metrics", options.host, metrics, "--metrics-port"))
    addresses: dict[tuple[str, int | str], Address] = {}
    for purpose, host, number, flag in wanted:
        key = host, number or flag
        shared = addresses.get(key)
        addresses[key] = (
            Address(purposes=(purpose,), host=host, port=number, flag=flag)
            if shared is None
            else replace(shared, purposes=(*shared.purposes, purpose))
        )
    return list(addresses.values())


def with_grpc(options: ServeOptions, ports: Mapping[Purpose, int | None]) -> ServeOptions:
    """Return `options` with gRPC on `ports`, where there are any.

    Raises:
        HatchMarError: the extra is not installed.
        UnguardedManagementError: management off loopback, which gRPC has no token for here.
    """
    wanted = {purpose: port for purpose, port in ports.items() if port is not None}
    if not wanted:
        return options
    if find_spec("grpc") is None:
        raise HatchMarError("gRPC needs the extra `grpc`: pip install 'hatch-mar[grpc]'")
    from hatch_mar.api.guard import is_loopback  # noqa: PLC0415 - see cli
    from hatch_mar.api.rpc.server import RpcAddress  # noqa: PLC0415 - the same

    if "management" in wanted and not is_loopback(options.management_host):
        raise UnguardedManagementError(
            f"--management-host {options.management_host}: gRPC's management is on loopback alone; "
            "the program torchserve guards it with keys"
        )
    hosts = {"inference": options.host, "management": options.management_host}
    flags = {"inference": "--grpc-port", "management": "--grpc-management-port"}
    addresses = tuple(
        RpcAddress(purpose=purpose, host=hosts[purpose], port=port, flag=flags[purpose])
        for purpose, port in wanted.items()
    )
    return replace(options, grpc=addresses, open_inference=True)


def _next(port: int, offset: int) -> int:
    """Return the port `offset` after `port`; 0 where the system chooses."""
    if port + offset > _LASTPORT:
        raise click.UsageError(f"--port {port}: no room for {offset} more ports after it")
    return port + offset if port else 0
