"""`TRTLLMHandler`: language models by TensorRT-LLM, in TorchServe."""

from __future__ import annotations

from typing import ClassVar

from hatch_mar.model.handlers.engines import EngineHandler


class TRTLLMHandler(EngineHandler):
    """Names what serves such a model."""

    name: ClassVar[str] = "trt_llm_handler"
    needs: ClassVar[str] = (
        "TensorRT-LLM (pip install tensorrt-llm) of 2024, whose interfaces have changed since"
    )
    instead: ClassVar[str] = (
        "`trtllm-serve <model>` serves it; or call tensorrt_llm.LLM in a handler of your own"
    )
