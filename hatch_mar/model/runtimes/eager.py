"""Eager models: a Python file with the architecture, and a state_dict."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

import torch

from hatch_mar.errors import HandlerError
from hatch_mar.model.classes import classes_of
from hatch_mar.model.factory import CheckpointError, make_model
from hatch_mar.model.runtimes.modules import ModuleRuntime

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.model.source import Source

logger = logging.getLogger("hatch_mar.model")


class ModelRuntime(ModuleRuntime):
    """Makes the class with its weights, which are mapped; see `hatch_mar.model.factory`."""

    def load(self, source: Source, device: Any) -> Any:  # noqa: ANN401 - torch is untyped here
        """See `Runtime.load`."""
        assert source.model_file is not None
        model_class = find_class(source.model_file)
        if source.weights is None:
            logger.warning("%s: no weights; serving what it is born with", source.model_file.name)
            return model_class().to(device).eval()
        try:
            model = make_model(model_class, source.weights, trusted=source.trusted)
        except CheckpointError as error:
            raise HandlerError(str(error)) from error
        return model.to(device).eval()


def find_class(model_file: Path) -> type:
    """Import `model_file` and return the one subclass of torch.nn.Module that it defines.

    Raises:
        HandlerError: there is none, or more than one to choose from.
    """
    classes = classes_of(importlib.import_module(model_file.stem), torch.nn.Module)
    if len(classes) != 1:
        names = ", ".join(repr(one.__name__) for one in classes) or "none"
        raise HandlerError(
            f"{model_file.name}: must define exactly one subclass of torch.nn.Module; it has: "
            f"{names}; name one with model-class when you build the archive"
        )
    return classes[0]
