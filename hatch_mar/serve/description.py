"""TorchServe's describe object of one model version: its fields, in its order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hatch_mar.serve.devices.discovery import measure

if TYPE_CHECKING:
    from hatch_mar.serve.devices.discovery import Device
    from hatch_mar.serve.pool import Pool
    from hatch_mar.serve.slot import Slot


def describe_pool(pool: Pool) -> dict[str, Any]:
    """Return the object that `GET /models/{model}/{version}` holds."""
    deployment, config, workforce = pool.deployment, pool.config, pool.workforce
    manifest = deployment.manifest
    description: dict[str, Any] = {
        "modelName": deployment.name,
        "modelVersion": deployment.version,
        "modelUrl": deployment.url,
        "runtime": "python" if manifest is None else manifest.runtime,
        "minWorkers": workforce.min_workers,
        "maxWorkers": workforce.max_workers,
        "batchSize": config.batch_size,
        # TorchServe would say 100 where nothing is set. We do not wait then, and do not say so.
        "maxBatchDelay": config.max_batch_delay or 0,
        "responseTimeout": config.response_timeout,
        "startupTimeout": config.startup_timeout,
        "maxRetryTimeoutInSec": config.max_retry_timeout_in_sec,
        "clientTimeoutInMills": config.client_timeout_in_mills,
        "parallelType": config.parallel_type,
        "parallelLevel": config.parallel_level,
        "deviceType": "gpu" if workforce.uses_gpu else "cpu",
    }
    if config.device_ids:
        description["deviceIds"] = list(config.device_ids)
    description |= {
        "continuousBatching": config.continuous_batching,
        "useJobTicket": config.use_job_ticket,
        "useVenv": config.use_venv,
        "stateful": config.sequence_batching,
        "sequenceMaxIdleMSec": config.sequence_max_idle_msec,
        "sequenceTimeoutMSec": config.sequence_timeout_msec,
        # TorchServe shows the bounds of sequences only where there are sequences.
        "maxNumSequence": config.max_num_sequence if config.sequence_batching else 0,
        "maxSequenceJobQueueSize": (
            config.max_sequence_job_queue_size if config.sequence_batching else 0
        ),
        "loadedAtStartup": deployment.loaded_at_startup,
        "workers": [_describe_slot(slot) for slot in workforce.slots],
        "jobQueueStatus": {
            "remainingCapacity": max(0, pool.capacity - pool.pending),
            "pendingRequests": pool.pending,
        },
    }
    if pool.autoscaler.elastic:
        description["scaling"] = pool.autoscaler.describe()
    return description


def _describe_slot(slot: Slot) -> dict[str, Any]:
    return {
        "id": str(slot.number),
        "startTime": slot.started_at,
        "status": "READY" if slot.answers else "UNLOADING",
        "memoryUsage": slot.memory(),
        "pid": slot.pid or -1,
        "gpu": slot.device is not None,
        "gpuUsage": "N/A" if slot.device is None else _describe_usage(slot.device),
        **_describe_report(slot),
    }


def _describe_report(slot: Slot) -> dict[str, Any]:
    """Return what TorchServe has no fields for.

    How a model with a section `cuda` runs, and what a worker on a GPU says of its memory.
    """
    described: dict[str, Any] = {} if slot.forward is None else {"cuda": slot.forward}
    report = slot.report
    if slot.device is None or report is None:
        return described
    described["batchCap"] = report.batch_cap
    if report.memory is not None:
        described["gpuMemory"] = {
            "allocatedPeakMB": report.memory.allocated,
            "reservedPeakMB": report.memory.reserved,
            "totalMB": report.memory.total,
        }
    return described


def _describe_usage(device: Device) -> str:
    usage = measure(device)
    if usage is None:
        return f"gpuId::{device.index}"
    return (
        f"gpuId::{device.index} utilization.gpu::{usage.busy:.0f} % "
        f"utilization.memory::{usage.memory_share:.0f} % memory.used::{usage.memory:.0f} MiB"
    )
