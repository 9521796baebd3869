"""`ts.torch_handler.distributed.base_deepspeed_handler`."""

from __future__ import annotations

import os
from typing import Any

from hatch_mar.model.base_handler import BaseHandler


class BaseDeepSpeedHandler(BaseHandler):
    """Base of handlers that put their model into a DeepSpeed engine, one process for each GPU."""

    def initialize(self, ctx: Any) -> None:  # noqa: ARG002, ANN401 - a Context
        """Take the GPU of this process's rank; loading the model is left to the subclass."""
        self.device = int(os.environ.get("LOCAL_RANK", "0"))
