"""The section `cuda` of model-config.yaml, as a worker reads it.

The keys, their types and what a build refuses are in `hatch_mar.archive.cudakeys`. Here whatever is
wrong is as if it were not set; `read_model_config` has warned about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hatch_mar.archive.cudakeys import CUDA_KEYS, SECTION, find_cuda_flaws


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaOptions:
    """How the author wants the model to run on its device."""

    precision: str = "float32"
    """`float32` (the model as it is), `bfloat16` or `float16` (autocast)."""
    channels_last: bool = False
    buckets: Literal[True] | tuple[int, ...] | None = None
    """Lengths to pad batches to, `True` for the powers of two; see `resolve_buckets`."""
    graphs: bool = False
    pipeline: bool | None = None
    """Whether copies overlap the model; None: where that is safe."""
    decode_threads: int | None = None
    aot_inductor: bool = False
    io_binding: bool = False
    tensorrt: bool = False


def read_cuda_options(config: Mapping[str, Any] | None) -> CudaOptions | None:
    """Return what the section in `config`, a whole model-config.yaml, says; None without one."""
    section = (config or {}).get(SECTION)
    if not isinstance(section, Mapping):
        return None
    flawed = {key for key, _ in find_cuda_flaws(section)}
    values = {
        key.attribute: _tidy(section[key.name])
        for key in CUDA_KEYS
        if key.name in section and key.name not in flawed
    }
    if values.get("graphs"):
        values.setdefault("buckets", True)
    return CudaOptions(**values)


def _tidy(value: Any) -> Any:  # noqa: ANN401 - of the key's type
    if isinstance(value, str):
        return value.lower()
    return tuple(sorted(value)) if isinstance(value, list) else value
