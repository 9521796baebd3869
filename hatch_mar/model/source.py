"""Where a model's files are and how its author wants them loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import HandlerError
from hatch_mar.model.factory import find_checkpoint, is_trusted

if TYPE_CHECKING:
    from hatch_mar.model.context import Context
    from hatch_mar.model.cuda.section import CudaOptions

USUAL_NAMES = ("model.safetensors.index.json", "model.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Everything a runtime needs to load a model."""

    directory: Path
    weights: Path | None = None
    model_file: Path | None = None
    trusted: bool = False
    """Whether the weights may be unpickled without restriction."""
    gpu_id: int | None = None
    max_gpu_memory: int | None = None
    """MB."""
    cuda: CudaOptions | None = None
    """The section `cuda` of model-config.yaml."""


def read_source(context: Context) -> Source:
    """Return what `context` says about the model's files.

    Raises:
        HandlerError: a file that the manifest or `handler.model_path` names is not there.
    """
    directory = Path(context.system_properties["model_dir"])
    described = (context.manifest or {}).get("model") or {}
    config = context.model_yaml_config or {}
    try:
        weights = find_checkpoint(directory, context.manifest, config)
    except FileNotFoundError as error:
        raise HandlerError(str(error)) from error
    if weights is None:
        weights = _find_in_directory(directory, config)
    model_file = directory / described["modelFile"] if described.get("modelFile") else None
    if model_file is not None and not model_file.is_file():
        raise HandlerError(f"{described['modelFile']}: the model file is not in the archive")
    return Source(
        directory=directory,
        weights=weights,
        model_file=model_file,
        trusted=weights is not None and is_trusted(weights, directory, context),
        # A handler's own unit tests bring contexts that have no more than TorchServe's mocks.
        gpu_id=context.system_properties.get("gpu_id"),
        max_gpu_memory=getattr(context, "max_gpu_memory", None),
        cuda=_read_cuda_options(config),
    )


def _read_cuda_options(config: Mapping[str, Any]) -> CudaOptions | None:
    if "cuda" not in config:
        return None
    from hatch_mar.model.cuda.section import read_cuda_options  # noqa: PLC0415 - few models have it

    return read_cuda_options(config)


def _find_in_directory(directory: Path, config: Mapping[str, Any]) -> Path | None:
    """Return the safetensors in the directory that `handler.model_path` names, if it is one.

    They have the names there that huggingface_hub's downloads give them.
    """
    section = config.get("handler")
    path = section.get("model_path") if isinstance(section, Mapping) else None
    places = (directory / path / name for name in USUAL_NAMES) if path else ()
    return next((place for place in places if place.is_file()), None)
