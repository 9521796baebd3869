"""`DenseNetHandler`: tensors in, a tensor out, both as `torch.save` writes them."""

# ruff: noqa: ANN401 - tensors come from a library that is loaded lazily

from __future__ import annotations

import importlib
import io
from typing import TYPE_CHECKING, Any

from hatch_mar.model.base_handler import BaseHandler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class DenseNetHandler(BaseHandler):
    """Answers a saved tensor with the network's output for it, saved."""

    def preprocess(self, data: Sequence[Mapping[str, Any]]) -> Any:
        """Return the rows' tensors, stacked; nothing but tensors is unpickled."""
        torch: Any = importlib.import_module("torch")
        saved = [bytes(row.get("data") or row.get("body") or b"") for row in data]
        tensors = [torch.load(io.BytesIO(one), weights_only=True) for one in saved]
        return torch.stack(tensors)

    def postprocess(self, data: Any) -> list[Any]:
        """Return each request's part of the output, as a batch of one."""
        return list(data.split(1))
