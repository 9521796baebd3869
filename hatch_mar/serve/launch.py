"""What a worker of a deployment is told: its LOAD frame, its environment, how many there are."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from hatch_mar.errors import ModelError
from hatch_mar.model.protocol import LoadOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.archive.modelconfig import ModelConfig
    from hatch_mar.serve.deployment import Deployment
    from hatch_mar.serve.devices import Device, Placement
    from hatch_mar.serve.settings import ServiceSettings


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


def make_options(
    deployment: Deployment, settings: ServiceSettings, *, gpu: bool, check_examples: bool
) -> dict[str, Any]:
    """Return the LOAD frame's value: `LoadOptions`, and what `hatch_mar.serve.worker.load` adds."""
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
        isolate=config.isolate,
        envelope=settings.envelope,
        metrics=settings.model_metrics,
        install_hooks=settings.install_hooks,
        trusted_pickle=() if seal is None else tuple(seal.trusted_pickle),
        examples=() if seal is None else tuple(example.as_dict() for example in seal.examples),
    )
    check = check_examples and settings.check_examples and bool(options.examples)
    mode = choose_mode(config)
    return {**asdict(options), "check_examples": check, "config_yaml": text, "mode": mode}


def choose_mode(config: ModelConfig) -> Literal["plain", "rounds", "overlapped"]:
    """Say in which loop a worker answers; see `hatch_mar.serve.worker.choose_loop`."""
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
    device: Device | None,
    placement: Placement,
) -> dict[str, str]:
    """Return a worker's environment: it sees its own device and no other.

    A model that spreads itself over several GPUs (`parallelType`) sees all that we may use. Where
    NVML knows of no GPU nothing is hidden: there may be accelerators that it does not know.
    """
    environ = dict(settings.environ)
    if placement.devices:
        visible = [] if device is None else [device]
        if device is not None and deployment.config.parallel_type:
            visible = placement.choose(deployment.config.device_ids, deployment.name)
        environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        environ["CUDA_VISIBLE_DEVICES"] = ",".join(one.uuid for one in visible)
    return environ
