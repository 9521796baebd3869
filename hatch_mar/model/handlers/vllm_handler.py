"""`VLLMHandler`: language models by vLLM, in TorchServe."""

from __future__ import annotations

from typing import ClassVar

from hatch_mar.model.handlers.engines import EngineHandler


class VLLMHandler(EngineHandler):
    """Names what serves such a model."""

    name: ClassVar[str] = "vllm_handler"
    needs: ClassVar[str] = "vLLM (pip install vllm) of 2024, whose interfaces have changed since"
    instead: ClassVar[str] = (
        "`vllm serve <model>` answers the same routes (/v1/completions, /v1/chat/completions, "
        "/v1/models); or call vLLM's AsyncLLM in a handler of your own"
    )
