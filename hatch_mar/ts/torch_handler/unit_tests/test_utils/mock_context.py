"""`ts.torch_handler.unit_tests.test_utils.mock_context`: a context for a handler's unit tests."""

from __future__ import annotations

import os
from typing import Any

from hatch_mar.model.context import Context
from hatch_mar.ts.utils.util import get_yaml_config


class MockContext(Context):
    """A context with a manifest made of a few names; GPUs are used where there are some."""

    def __init__(  # noqa: PLR0917 - TorchServe's signature
        self,
        model_pt_file: str | None = "model.pt",
        model_dir: str = "ts/torch_handler/unit_tests/models/tmp",
        model_file: str | None = "model.py",
        gpu_id: str | None = "0",
        model_name: str = "mnist",
        model_yaml_config_file: str | None = None,
    ) -> None:
        """Describe a model in `model_dir`."""
        described: dict[str, Any] = {}
        if model_pt_file:
            described["serializedFile"] = model_pt_file
        if model_file:
            described["modelFile"] = model_file
        config = None
        if model_yaml_config_file:
            config = get_yaml_config(os.path.join(model_dir, model_yaml_config_file))  # noqa: PTH118
        super().__init__(
            model_name,
            model_dir,
            {"model": described},
            1,
            int(gpu_id) if gpu_id and _has_gpu() else None,
            model_yaml_config=config,
        )
        self.explain = False
        self.limit_max_image_pixels = True

    def get_request_header(self, idx: int, key: str) -> Any:  # noqa: ANN401 - as in Context
        """Return whether a prediction is to be explained, for any header; else nothing is set."""
        if key == "explain" and self.explain:
            return "True"
        return super().get_request_header(idx, key) if self.request_processor else None


def _has_gpu() -> bool:
    import torch  # noqa: PLC0415 - not every handler needs it

    return bool(torch.cuda.is_available())
