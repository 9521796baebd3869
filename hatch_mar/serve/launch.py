"""How workers of a deployment are started: how many, and what each of them is told."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from hatch_mar.errors import ModelError
from hatch_mar.model.protocol import LoadOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from hatch_mar.archive.modelconfig import ModelConfig
    from hatch_mar.serve.deployment import Deployment
    from hatch_mar.serve.devices.placement import Group, Placement
    from hatch_mar.serve.output import Streams
    from hatch_mar.serve.settings import ServiceSettings

_LAUNCHED_TYPES = ("pp", "tp", "pptp")
MOST_RANKS = 256
_LOOPBACK_INTERFACE = "lo" if sys.platform == "linux" else "lo0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How the processes of a slot are started."""

    model: str
    """Name and version, for messages."""
    python: str
    directory: Path
    environ: dict[str, str]
    options: dict[str, Any]
    """The LOAD frame's value; `check_examples` holds for the first process only."""
    startup_timeout: float
    """Seconds a process may take to load the model."""
    retry_timeout: float
    """Seconds from its first death for which a worker is started again and again."""
    output: Callable[[int], AbstractContextManager[Streams]]
    """Returns what the worker with a number writes to."""
    ranks: int = 0
    """Processes that the model is divided among; 0: it is in one, which is started as it is."""


def count_workers(deployment: Deployment, settings: ServiceSettings, gpus: int) -> int:
    """Say how many workers to start.

    As many as the deployment says, else `--workers`, else `minWorkers`, else one per GPU, or one.
    A model that spreads itself over all GPUs (`parallelType`) is there once.
    """
    if deployment.workers is not None:
        return deployment.workers
    if settings.workers is not None:
        return settings.workers
    config = deployment.config
    if config.min_workers or config.parallel_type:
        return config.min_workers or 1
    return max(gpus, 1) if settings.default_workers is None else settings.default_workers


def count_ranks(deployment: Deployment, gpus: int) -> int:
    """Say how many processes a worker is made of: 0 if it is one that needs no launcher.

    `torchrun.nproc-per-node`, else `parallelLevel`; nothing without a `parallelType`. A model of
    the type `custom` starts its processes itself, as in TorchServe.

    Args:
        deployment: The model.
        gpus: How many it may use; 0 if it runs on CPU.

    Raises:
        ModelError: it wants more machines than one, or more GPUs than there are.
    """
    config = deployment.config
    if config.parallel_type not in _LAUNCHED_TYPES:
        return 0
    torchrun = config.torchrun
    key, ranks = "parallelLevel", config.parallel_level
    if torchrun is not None:
        key, ranks = "torchrun.nproc-per-node", max(_whole(torchrun.get("nproc-per-node"), 1), 1)
        if _whole(torchrun.get("nnodes"), 1) > 1:
            raise ModelError(
                f"{deployment.name}: model-config.yaml: torchrun.nnodes: a worker's processes are "
                "all on one machine; set it to 1"
            )
    if ranks > MOST_RANKS:
        raise ModelError(
            f"{deployment.name}: model-config.yaml: {key}: {ranks} is more than {MOST_RANKS}"
        )
    if gpus and ranks > gpus:
        raise ModelError(
            f"{deployment.name}: model-config.yaml: {key}: {ranks} processes need as many GPUs, "
            f"and it may use {gpus}; set it to {gpus}, or deviceType to cpu"
        )
    return max(ranks, 0)


def _whole(value: object, otherwise: int) -> int:
    """Return `value` if it is a whole number: TorchServe passes over anything else."""
    return value if type(value) is int else otherwise


def uses_gpu(deployment: Deployment, settings: ServiceSettings, placement: Placement) -> bool:
    """Say whether the workers run on GPUs.

    Raises:
        ModelError: the operator asked for GPUs, and there are none, or not those.
    """
    if settings.device == "gpu" and not placement.devices:
        raise ModelError(
            f"{deployment.name}: no GPU is visible, but GPUs were asked for; check the driver and "
            "CUDA_VISIBLE_DEVICES, or leave the choice to us with `--device auto`"
        )
    if settings.device == "gpu" and (missing := placement.missing(deployment.config.device_ids)):
        there = ", ".join(sorted({str(device.index) for device in placement.devices}))
        raise ModelError(
            f"{deployment.name}: there is no GPU {', '.join(map(str, missing))}; visible: {there}"
        )
    wanted = deployment.config.device_type if settings.device == "auto" else settings.device
    return bool(placement.devices) and wanted != "cpu"


def make_launch(
    deployment: Deployment,
    settings: ServiceSettings,
    group: Group,
    placement: Placement,
    *,
    model: str,
    ranks: int,
    check_examples: bool,
) -> Launch:
    """Say how the processes of a slot are started whose worker runs on `group`, or on CPU."""
    options = make_options(
        deployment,
        settings,
        gpu=bool(group),
        check_examples=check_examples,
        ranks=ranks,
    )
    return Launch(
        model=model,
        python=deployment.python or settings.python,
        directory=deployment.directory,
        environ=make_environ(deployment, settings, group, placement, ranks),
        options=options,
        startup_timeout=deployment.config.startup_timeout,
        retry_timeout=deployment.config.max_retry_timeout_in_sec,
        output=lambda worker: settings.output(worker, deployment.name, deployment.version),
        ranks=ranks,
    )


def make_options(
    deployment: Deployment,
    settings: ServiceSettings,
    *,
    gpu: bool,
    check_examples: bool,
    ranks: int = 0,
) -> dict[str, Any]:
    """Return the LOAD frame's value: `LoadOptions`, and what `serve.worker.main.load` adds.

    Of a model in several processes every rank is handed every batch, unless they are the stages of
    a pipeline: then rank 0 passes on what it has made of it. A batch that failed is not tried again
    in halves: the ranks might not agree on what has failed.
    """
    config, seal, manifest = deployment.config, deployment.seal, deployment.manifest
    text = _as_yaml(config.raw)
    options = LoadOptions(
        model_name=deployment.name,
        model_version=deployment.version,
        model_dir=str(deployment.directory),
        handler=deployment.handler,
        manifest=None if manifest is None else manifest.as_dict(),
        config=None if text else config.raw,
        batch_size=config.batch_size,
        gpu_id=0 if gpu else None,
        max_gpu_memory=config.system_max_gpu_memory,
        limit_max_image_pixels=settings.limit_max_image_pixels,
        decode_input_request=settings.decode_input_request,
        isolate=False if ranks and config.isolate is None else config.isolate,
        envelope=settings.envelope,
        metrics=settings.model_metrics,
        install_hooks=settings.install_hooks,
        trusted_pickle=() if seal is None else tuple(seal.trusted_pickle),
        examples=() if seal is None else tuple(example.as_dict() for example in seal.examples),
    )
    check = check_examples and settings.check_examples and bool(options.examples)
    mode = choose_mode(config)
    value = {**asdict(options), "check_examples": check, "config_yaml": text, "mode": mode}
    return {**value, "broadcast": config.parallel_type != "pp"} if ranks else value


def choose_mode(config: ModelConfig) -> Literal["plain", "rounds", "overlapped"]:
    """Say in which loop a worker answers; see `hatch_mar.serve.worker.main.choose_loop`."""
    if config.continuous_batching:
        return "rounds"
    return "overlapped" if config.async_communication and not config.sequence_batching else "plain"


def _as_yaml(raw: Mapping[str, Any]) -> str:
    """Return the config as YAML if JSON cannot hold it (dates, numbers as keys), else nothing."""
    try:
        if json.loads(json.dumps(raw)) == raw:
            return ""
    except (TypeError, ValueError):
        pass
    import yaml  # noqa: PLC0415 - hardly any config needs it

    return str(yaml.safe_dump(dict(raw), sort_keys=False))


def make_environ(
    deployment: Deployment,
    settings: ServiceSettings,
    group: Group,
    placement: Placement,
    ranks: int = 0,
) -> dict[str, str]:
    """Return a worker's environment: it sees its own devices and no others.

    Where NVML knows of no GPU nothing is hidden: there may be accelerators that it does not know.
    """
    environ = dict(settings.environ)
    if placement.devices:
        environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        environ["CUDA_VISIBLE_DEVICES"] = ",".join(device.uuid for device in group)
    if ranks:
        threads = _whole((deployment.config.torchrun or {}).get("OMP_NUMBER_THREADS"), 1)
        environ["OMP_NUM_THREADS"] = str(threads)
        # They are all on this machine: nobody else need reach what they listen on.
        for library in ("GLOO", "NCCL"):
            environ.setdefault(f"{library}_SOCKET_IFNAME", _LOOPBACK_INTERFACE)
    return environ
