"""`ts.handler_utils.distributed.pt_pippy`: names of a library that has become part of torch."""

from __future__ import annotations

from typing import Any, NoReturn


def _refuse(name: str) -> NoReturn:
    raise ImportError(
        f"{name} needs PiPPy, which is archived and works with no torch from 2.4 on: use "
        "torch.distributed.pipelining, its successor, in the handler's `initialize`",
        name="pippy",
    )


def initialize_rpc_workers(local_rank: int, world_size: int, ctx: Any) -> None:  # noqa: ARG001, ANN401
    """Say what to use instead.

    Raises:
        ImportError: always.
    """
    _refuse("initialize_rpc_workers")


def get_pipeline_driver(model: Any, world_size: int, ctx: Any) -> Any:  # noqa: ARG001, ANN401
    """Say what to use instead.

    Raises:
        ImportError: always.
    """
    _refuse("get_pipeline_driver")
