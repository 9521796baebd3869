"""torch's elastic launcher, for a group of processes on this machine alone.

What the members of a group exchange to find each other is nobody else's business: the launcher's
own ways to meet (`c10d`, `etcd`) listen on every interface, ours on loopback. It is the store that
`torch.distributed.init_process_group()` finds through `env://`, too.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOPBACK = "127.0.0.1"
_BACKEND = "hatch-mar"


class LoopbackRendezvous(RendezvousHandler):  # type: ignore[misc]  # torch is not followed
    """A meeting of one machine with itself."""

    def __init__(self, run_id: str) -> None:
        """Open the store."""
        self._run_id = run_id
        listener = socket.create_server((_LOOPBACK, 0))
        self._port: int = listener.getsockname()[1]
        self._store = TCPStore(
            _LOOPBACK,
            self._port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),  # the store's from here on
        )

    def get_backend(self) -> str:
        """Return the name under which it is registered."""
        return _BACKEND

    @property
    def use_agent_store(self) -> bool:
        """The group uses this store: nobody opens another one."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """Return at once: nobody else is waited for."""
        address = RendezvousStoreInfo(_LOOPBACK, self._port)
        return RendezvousInfo(self._store, 0, 1, address)

    def is_closed(self) -> bool:
        """Say no: there is nobody to close it."""
        return False

    def set_closed(self) -> None:
        """Do nothing."""

    def num_nodes_waiting(self) -> int:
        """Return 0: nobody comes."""
        return 0

    def get_run_id(self) -> str:
        """Return the name of the group."""
        return self._run_id

    def shutdown(self) -> bool:
        """Do nothing: the store goes with the process."""
        return True


def launch(entrypoint: Callable[[], None], ranks: int, *, run_id: str) -> None:
    """Run `entrypoint`, which can be pickled, in `ranks` new processes, and return when all ended.

    They see `RANK`, `LOCAL_RANK`, `WORLD_SIZE` and all else that torchrun sets. None is started
    again. Signals are left to the caller.

    Raises:
        ChildFailedError: one of them failed.
    """

    def meet(parameters: RendezvousParameters) -> RendezvousHandler:
        return LoopbackRendezvous(parameters.run_id)

    rendezvous_handler_registry.register(_BACKEND, meet)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=run_id,
        role="worker",
        rdzv_backend=_BACKEND,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # what they print is printed
        local_addr=_LOOPBACK,
        signals_to_handle="SIGQUIT",
    )
    elastic_launch(config, entrypoint)()
