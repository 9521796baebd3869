"""`ts.torch_handler.trt_llm_handler`."""

from __future__ import annotations

from hatch_mar.model.handlers.trt_llm_handler import TRTLLMHandler

__all__ = ["TRTLLMHandler"]
