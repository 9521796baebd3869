"""Whether a model can run as its section `cuda` says, and the `Forward` that does so."""

# ruff: noqa: ANN401 - models and devices are of libraries that are loaded lazily

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from hatch_mar.model.compilation import compile_model
from hatch_mar.model.cuda.layer import open_layer
from hatch_mar.model.cuda.section import read_cuda_options
from hatch_mar.model.devices import DeviceName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.model.cuda.forward import Forward
    from hatch_mar.model.cuda.section import CudaOptions

OF_MODULES = {"precision": "precision", "channels_last": "channelsLast"}
"""What only a `torch.nn.Module` can do: attribute of the options, and key."""
OF_TORCH = {**OF_MODULES, "buckets": "buckets", "graphs": "graphs"}
"""What only models of torch can do."""

logger = logging.getLogger("hatch_mar.model")


def open_forward(
    model: Any, device: Any, config: Mapping[str, Any], batch_size: int
) -> Forward | None:
    """Return what runs `model` on `device` as `config` says; it is compiled if `pt2` says so.

    None without a section `cuda`, and for models that are not torch's. What a model cannot do is
    left out with a warning.

    Raises:
        HandlerError: the device cannot do what is wanted.
    """
    options = read_cuda_options(config)
    if options is None:
        return None
    if isinstance(device, DeviceName) or not callable(model):
        _leave_out(options, OF_TORCH, "this model is not run by torch")
        return None
    import torch  # noqa: PLC0415 - others do without

    from hatch_mar.model.cuda.buckets import resolve_buckets  # noqa: PLC0415 - see above
    from hatch_mar.model.cuda.forward import Forward  # noqa: PLC0415

    is_module = isinstance(model, torch.nn.Module)
    if not is_module:
        reason = f"the model, a {type(model).__name__}, is compiled already"
        options = _leave_out(options, OF_MODULES, reason)
        options = dataclasses.replace(options, aot_inductor=False)
    layer = open_layer(device)
    if layer is None:
        options = _leave_out(options, {"graphs": "graphs"}, "there is no GPU here")
    buckets = resolve_buckets(options.buckets, batch_size)
    compiled = compile_model(model, config, shapes=len(buckets)) if is_module else model
    if compiled is not model:
        options = _leave_out(options, {"aot_inductor": "aotInductor"}, "pt2 compiles the model")
    return Forward(compiled, device=device, options=options, batch_size=batch_size, layer=layer)


def warn_in_vain(config: Mapping[str, Any]) -> None:
    """Warn of what the section in `config` says of a model that its handler runs by itself."""
    options = read_cuda_options(config)
    if options is not None:
        _leave_out(options, OF_TORCH, "the handler, no BaseHandler, runs its model itself")


def _leave_out(options: CudaOptions, keys: Mapping[str, str], reason: str) -> CudaOptions:
    """Return `options` without those of `keys`; warn of each that is set."""
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    gone: dict[str, Any] = {
        name: defaults[name] for name in keys if getattr(options, name) != defaults[name]
    }
    for name in gone:
        logger.warning("cuda.%s: ignored: %s", keys[name], reason)
    return dataclasses.replace(options, **gone)
