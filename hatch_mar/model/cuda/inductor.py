"""Where torch keeps what torch.compile made, so that the next start need not wait for it."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import sys
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import WeightsError
from hatch_mar.model.compilation import read_options
from hatch_mar.model.cuda.kept import directory_of

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

DIRECTORY = "TORCHINDUCTOR_CACHE_DIR"
"""What tells torch; Triton keeps its kernels below it."""

logger = logging.getLogger("hatch_mar.model")


def keep_compiled_code(config: Mapping[str, Any], environ: MutableMapping[str, str]) -> None:
    """Have what torch compiles for `config` kept in our cache, by way of `environ`.

    It has to be called before torch is imported. Where `environ` says already, or the cache cannot
    be written, nothing is changed. Code of another torch, Python or kind of processor has another
    path; that of another GPU torch tells apart itself.
    """
    if DIRECTORY in environ or read_options(config) is None:
        return
    try:
        release = f"torch-{importlib.metadata.version('torch')}"
        kind = f"{release}-{sys.implementation.cache_tag}-{platform.machine()}"
        directory = directory_of(f"inductor/{kind}", environ)
    except (OSError, WeightsError, importlib.metadata.PackageNotFoundError) as error:
        logger.warning("pt2: compiled code is not kept for the next start: %s", error)
        return
    environ[DIRECTORY] = str(directory)
