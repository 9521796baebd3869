"""`ts.torch_handler.distributed.base_pippy_handler`."""

from __future__ import annotations

import os
from typing import Any

from hatch_mar.model.base_handler import BaseHandler
from hatch_mar.ts.handler_utils.distributed.pt_pippy import initialize_rpc_workers


class BasePippyHandler(BaseHandler):
    """Base of handlers that divided their model among processes with PiPPy."""

    def initialize(self, ctx: Any) -> None:  # noqa: ANN401 - a Context
        """Say what to use instead.

        Raises:
            ImportError: always.
        """
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        initialize_rpc_workers(self.local_rank, self.world_size, ctx)
