"""captum, which explains predictions: looked for only when somebody asks for an explanation."""

from __future__ import annotations

import importlib
from typing import Any

from hatch_mar.model.faults import PredictionException

NOT_IMPLEMENTED = 501
STEPS = 15
"""Points between the baseline and the input at which gradients are taken, as TorchServe does."""


def load_captum() -> Any:  # noqa: ANN401 - an untyped module
    """Return the module `captum.attr`.

    Raises:
        PredictionException: (501) captum is not installed here; says how to get it.
    """
    try:
        return importlib.import_module("captum.attr")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "captum":
            raise
        raise PredictionException(
            "explanations need captum, which is not installed on this server: pip install captum",
            NOT_IMPLEMENTED,
        ) from None
