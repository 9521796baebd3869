"""`ts.torch_handler.vllm_handler`."""

from __future__ import annotations

from hatch_mar.model.handlers.vllm_handler import VLLMHandler

__all__ = ["VLLMHandler"]
