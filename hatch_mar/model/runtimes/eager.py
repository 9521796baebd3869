"""Eager models: a Python file with the architecture, and a state_dict."""

from __future__ import annotations

import importlib
import inspect
import logging
from typing import TYPE_CHECKING, Any

import torch

from hatch_mar.errors import HandlerError
from hatch_mar.model.factory import fit_state_dict, read_checkpoint
from hatch_mar.model.runtimes.modules import ModuleRuntime

if TYPE_CHECKING:
    from types import ModuleType

    from hatch_mar.model.source import Source

logger = logging.getLogger("hatch_mar.model")


class ModelRuntime(ModuleRuntime):
    """Makes the class, then loads its weights."""

    def load(self, source: Source, device: Any) -> Any:  # noqa: ANN401 - torch is untyped here
        """See `Runtime.load`."""
        if source.model_file is None:
            raise HandlerError("runtime 'eager': needs a model file with the architecture")
        model = find_class(source)(**source.model_args)
        if source.weights is None:
            logger.warning("%s: no weights; serving what it is born with", source.model_file.name)
        else:
            state = read_checkpoint(source.weights, trusted=source.trusted)
            fit_state_dict(model, state, source.weights.name)
        return model.to(device).eval()


def find_class(source: Source) -> Any:  # noqa: ANN401 - a class of modules
    """Import the model file and return its class: the one named, or the only one defined in it.

    Raises:
        HandlerError: there is none, or more than one to choose from.
    """
    assert source.model_file is not None
    module = importlib.import_module(source.model_file.stem)
    classes = _module_classes(module)
    if source.model_class is not None:
        named = getattr(module, source.model_class, None)
        if named is None:
            raise HandlerError(
                f"{source.model_file.name}: has no class {source.model_class!r}; "
                f"it has: {_names(classes)}"
            )
        return named
    if len(classes) != 1:
        raise HandlerError(
            f"{source.model_file.name}: must define exactly one subclass of torch.nn.Module, "
            f"or model-class must name the one to serve; it has: {_names(classes)}"
        )
    return classes[0]


def _module_classes(module: ModuleType) -> list[type]:
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and issubclass(value, torch.nn.Module)
    ]


def _names(classes: list[type]) -> str:
    return ", ".join(repr(one.__name__) for one in classes) or "none"
