"""What is published of workers and their GPUs; of what runs on the CPU there is nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.serve.metrics.store import OWN_PREFIX, Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hatch_mar.model.protocol import DeviceReport
    from hatch_mar.serve.devices.placement import Placement
    from hatch_mar.serve.metrics.store import Labels
    from hatch_mar.serve.pool import Pool
    from hatch_mar.serve.slot import Slot


def collect_devices(
    pools: Iterable[Pool], placement: Placement | None, hostname: str
) -> Iterator[Family]:
    """Yield batches that found no room, and per worker the cap of its batches and its memory.

    Of a placement, if there is one yet, also which GPUs are lost.
    """
    chosen = [pool for pool in pools if pool.workforce.uses_gpu or pool.workforce.out_of_memory]
    yield Family(
        f"{OWN_PREFIX}out_of_memory_total",
        "counter",
        "batches that found no room in memory, be they answered in smaller ones or not",
        [("", _name_model(pool, hostname), float(pool.workforce.out_of_memory)) for pool in chosen],
    )
    workers = [
        (_name_worker(pool, slot, hostname), slot.report)
        for pool in chosen
        for slot in pool.workforce.slots
        if slot.report is not None
    ]
    caps = [("", labels, float(report.batch_cap)) for labels, report in workers]
    yield Family(
        f"{OWN_PREFIX}batch_cap",
        "gauge",
        "the most requests that a worker takes as one batch now",
        caps,
    )
    yield from _collect_memory(workers)
    if placement is not None:
        yield Family(
            f"{OWN_PREFIX}gpu_lost",
            "gauge",
            "1 for a GPU that failed and is used no more",
            [
                (
                    "",
                    (("device", device.uuid), ("gpu", str(device.index)), ("hostname", hostname)),
                    float(device.uuid in placement.lost),
                )
                for device in placement.devices
            ],
        )


def _collect_memory(workers: list[tuple[Labels, DeviceReport]]) -> Iterator[Family]:
    known = [(labels, report.memory) for labels, report in workers if report.memory is not None]
    yield Family(
        f"{OWN_PREFIX}gpu_memory_allocated_peak_megabytes",
        "gauge",
        "the most that a worker's tensors took of its GPU",
        [("", labels, float(memory.allocated)) for labels, memory in known],
    )
    yield Family(
        f"{OWN_PREFIX}gpu_memory_reserved_peak_megabytes",
        "gauge",
        "the most that PyTorch set aside for a worker's tensors, which maxGPUMemory bounds",
        [("", labels, float(memory.reserved)) for labels, memory in known],
    )


def _name_model(pool: Pool, hostname: str) -> Labels:
    deployment = pool.deployment
    return (
        ("model_name", deployment.name),
        ("model_version", deployment.version),
        ("hostname", hostname),
    )


def _name_worker(pool: Pool, slot: Slot, hostname: str) -> Labels:
    where = "cpu" if slot.device is None else str(slot.device)
    name, version, host = _name_model(pool, hostname)
    return (name, version, ("worker", str(slot.number)), ("device", where), host)
