"""Warm before ready: every length of batch has run once before the first client asks.

What a batch looks like only an example can say. Where the archive has a golden one, its first is
asked as often as each bucket is long, the longest first: that is when code is compiled, graphs are
captured and memory is taken. Without one, the first batch of each length pays.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hatch_mar.archive.seal import Example
from hatch_mar.model.golden import describe_failure, make_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.cuda.forward import Forward
    from hatch_mar.model.metrics import Measurement
    from hatch_mar.model.protocol import LoadOptions, Request, Response

logger = logging.getLogger("hatch_mar.model")


class Warmable(Protocol):
    """A model that can be asked, and forget that it was."""

    def predict(self, requests: Sequence[Request]) -> list[Response]:
        """Answer `requests`."""
        ...

    def drain_metrics(self) -> list[Measurement]:
        """Return what was measured since the last call."""
        ...


def warm(model: Warmable, forward: Forward, options: LoadOptions) -> None:
    """Ask `model` its first golden example, in batches of all the lengths of `forward`.

    It stops at the first that fails: whether the example is right is checked elsewhere.
    """
    if not options.examples:
        logger.info(
            "cuda: there is no golden example to warm the model with; the first batch of each "
            "length will take longer"
        )
        return
    example = Example.from_dict(options.examples[0])
    request = make_request(example, Path(options.model_dir, example.input).read_bytes())
    started = time.perf_counter()
    sizes = forward.sizes
    for size in reversed(sizes):
        batch = [dataclasses.replace(request, id=f"warm-{index}") for index in range(size)]
        failures = filter(None, map(describe_failure, model.predict(batch)))
        if (failure := next(failures, None)) is not None:
            logger.warning("cuda: warming with %r, %d at once: %s", example.input, size, failure)
            break
    else:
        if not forward.ran:
            logger.warning("cuda: ignored: the handler calls its model itself, in `inference`")
    model.drain_metrics()
    elapsed = time.perf_counter() - started
    logger.info("cuda: warmed batches of %s in %.1f seconds", ", ".join(map(str, sizes)), elapsed)
