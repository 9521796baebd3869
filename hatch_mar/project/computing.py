"""Which keys of the section `cuda` do something for which runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hatch_mar.archive.cudakeys import SECTION

if TYPE_CHECKING:
    from hatch_mar.project.config import Config
    from hatch_mar.project.reading import Reading
    from hatch_mar.project.spec import Runtime

_MODULES: tuple[Runtime, ...] = ("eager", "torchscript", "exported")
_OF_TORCH: tuple[Runtime, ...] = (*_MODULES, "aoti", "tensorrt")
TAKERS: Mapping[str, tuple[Runtime, ...]] = {
    "precision": _MODULES,
    "channelsLast": _MODULES,
    "buckets": _OF_TORCH,
    "graphs": _OF_TORCH,
    "aotInductor": ("eager", "exported"),
    "tensorrt": ("onnx",),
}
"""The runtimes that heed a key. Nobody knows what handlers make of models they load themselves."""


def check_computing(reading: Reading, config: Config, runtime: Runtime) -> None:
    """Complain of every key of `cuda` that a model of `runtime` passes over."""
    section = config.values.get(SECTION)
    if not isinstance(section, Mapping) or runtime == "custom":
        return
    for key, takers in TAKERS.items():
        if section.get(key) in (None, False, "float32") or runtime in takers:
            continue
        *most, last = (f"'{taker}'" for taker in takers)
        wanted = f"{', '.join(most)} or {last}" if most else last
        message = f"does nothing with the runtime '{runtime}', only with {wanted}; remove it"
        reading.complain_at(config.origin_of(reading, (SECTION, key)), message)
