"""Which batcher a model's config asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hatch_mar.serve.batching.batcher import Batcher
from hatch_mar.serve.batching.open_batcher import OpenBatcher
from hatch_mar.serve.batching.sequences import SequenceBatcher
from hatch_mar.serve.launch import choose_mode

if TYPE_CHECKING:
    from hatch_mar.archive.modelconfig import ModelConfig
    from hatch_mar.serve.batching.forecast import Forecast

OVERLAPPED_ROOM = 1024
"""Requests that a worker with `asyncCommunication` may have begun: TorchServe knows no bound."""


def make_batcher(config: ModelConfig, capacity: int, forecast: Forecast | None = None) -> Batcher:
    """Return the batcher for `config`, for at most `capacity` requests that no worker has begun.

    It goes by `forecast` where workers answer batch after batch; others cannot be predicted so.
    """
    limits: dict[str, Any] = {
        "batch_size": config.batch_size,
        "max_delay": (config.max_batch_delay or 0) / 1000,
        "client_timeout": config.client_timeout_in_mills / 1000,
        "response_timeout": config.response_timeout,
        "tickets": config.use_job_ticket,
    }
    mode = choose_mode(config)
    if config.sequence_batching:
        return SequenceBatcher(
            max_sequences=config.max_num_sequence,
            queue_size=config.max_sequence_job_queue_size,
            max_idle=config.sequence_max_idle_msec / 1000,
            timeout=config.sequence_timeout_msec / 1000,
            overlapping=mode == "rounds",
            **limits,
        )
    if mode == "plain":
        return Batcher(
            capacity=capacity,
            max_wait=(config.max_queue_delay or 0) / 1000,
            forecast=forecast,
            **limits,
        )
    room = OVERLAPPED_ROOM if mode == "overlapped" else config.batch_size
    return OpenBatcher(capacity=capacity, room=room, **limits)
