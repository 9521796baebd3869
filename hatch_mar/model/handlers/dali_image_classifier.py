"""`DALIImageClassifier`: images decoded on the GPU, in TorchServe."""

from __future__ import annotations

from typing import ClassVar

from hatch_mar.model.handlers.engines import EngineHandler


class DALIImageClassifier(EngineHandler):
    """Names what serves such a model."""

    name: ClassVar[str] = "dali_image_classifier"
    needs: ClassVar[str] = "NVIDIA DALI (pip install nvidia-dali-cuda130)"
    instead: ClassVar[str] = (
        "use the handler 'image_classifier', which answers the same, or run your DALI pipeline in "
        "`preprocess` of a subclass of ImageClassifier"
    )
