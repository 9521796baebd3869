"""Golden examples: inputs whose answers the author recorded.

A model that answers them differently is not the model that was released: wrong weights, another
library, a device that rounds otherwise. It is caught before the first client asks.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hatch_mar.archive.seal import Example
from hatch_mar.errors import GoldenError
from hatch_mar.model.protocol import Part, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hatch_mar.model.protocol import Response

SHOWN = 120
"""Characters of an answer that a message quotes."""

logger = logging.getLogger("hatch_mar.model")


class Answering(Protocol):
    """A model that can be asked."""

    last_traceback: str

    def predict(self, requests: Sequence[Request]) -> list[Response]:
        """Answer `requests`."""
        ...


def check_example(model: Answering, raw: Mapping[str, Any], model_dir: str) -> None:
    """Ask `model` the example `raw` and compare.

    Raises:
        GoldenError: the answer differs, and the example's policy is to fail.
    """
    example = Example.from_dict(raw)
    body = Path(model_dir, example.input).read_bytes()
    expected = Path(model_dir, example.output).read_bytes()
    response = model.predict([make_request(example, body)])[0]
    difference = describe_failure(response) or find_difference(
        expected, bytes(response.body), rtol=example.rtol, atol=example.atol
    )
    if difference is None:
        return
    message = f"golden example {example.input!r}: {difference}"
    if example.policy == "warn":
        logger.warning("%s", message)
        return
    raise GoldenError(message, traceback=model.last_traceback)


def make_request(example: Example, body: bytes) -> Request:
    """Return the request that asks `example`, whose input file holds `body`."""
    return Request(
        id="golden-example", headers=(), parts=[Part("body", example.content_type, body)]
    )


def describe_failure(response: Response) -> str | None:
    """Say how `response` is an error; None if it is an answer."""
    if not response.error:
        return None
    return f"answered {response.status} {bytes(response.body).decode(errors='replace')}"


def find_difference(expected: bytes, got: bytes, *, rtol: float, atol: float) -> str | None:
    """Return where `got` first differs from `expected`, in words; None if it does not.

    JSON is compared by value, numbers within `atol + rtol * |expected|`; anything else by bytes.
    """
    try:
        wanted = json.loads(expected)
    except ValueError:
        return None if expected == got else f"expected {_quote(expected)}, got {_quote(got)}"
    try:
        value = json.loads(got)
    except ValueError:
        return f"expected JSON, got {_quote(got)}"
    return next(_differences(wanted, value, "$", rtol, atol), None)


def largest_difference(expected: bytes, got: bytes) -> float | None:
    """Return by how much a number of `got` is off at most, where both are JSON of one shape.

    None where they are not, or hold no numbers: then there is nothing to measure.
    """
    try:
        wanted, value = json.loads(expected), json.loads(got)
    except ValueError:
        return None
    gaps = list(_gaps(wanted, value))
    known = [gap for gap in gaps if gap is not None]
    return max(known) if known and len(known) == len(gaps) else None


def _gaps(wanted: Any, got: Any) -> Iterator[float | None]:  # noqa: ANN401 - JSON
    """Yield how far apart each pair of numbers is; None where the shapes differ."""
    if _is_number(wanted) and _is_number(got):
        yield 0.0 if _is_close(wanted, got, 0, 0) else abs(got - wanted)
    elif isinstance(wanted, dict) and isinstance(got, dict) and wanted.keys() == got.keys():
        for key, value in wanted.items():
            yield from _gaps(value, got[key])
    elif isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        for pair in zip(wanted, got, strict=True):
            yield from _gaps(*pair)
    elif type(wanted) is not type(got) or isinstance(wanted, dict | list):
        yield None


def _differences(wanted: Any, got: Any, path: str, rtol: float, atol: float) -> Iterator[str]:  # noqa: ANN401 - JSON
    if _is_number(wanted) and _is_number(got):
        if not _is_close(wanted, got, rtol, atol):
            yield f"at {path}: expected {wanted}, got {got}"
    elif isinstance(wanted, dict) and isinstance(got, dict):
        if wanted.keys() != got.keys():
            yield f"at {path}: expected the keys {sorted(wanted)}, got {sorted(got)}"
        for key, value in wanted.items():
            yield from _differences(value, got[key], f"{path}.{key}", rtol, atol)
    elif isinstance(wanted, list) and isinstance(got, list):
        if len(wanted) != len(got):
            yield f"at {path}: expected {len(wanted)} items, got {len(got)}"
        for index, pair in enumerate(zip(wanted, got, strict=False)):
            yield from _differences(*pair, f"{path}[{index}]", rtol, atol)
    elif wanted != got or isinstance(wanted, bool) is not isinstance(got, bool):
        yield f"at {path}: expected {_quote(wanted)}, got {_quote(got)}"


def _is_number(value: Any) -> bool:  # noqa: ANN401 - JSON
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_close(wanted: float, got: float, rtol: float, atol: float) -> bool:
    if not (math.isfinite(wanted) and math.isfinite(got)):
        return wanted == got or (wanted != wanted and got != got)  # noqa: PLR0124 - NaN is NaN here
    return abs(got - wanted) <= atol + rtol * abs(wanted)


def _quote(value: Any) -> str:  # noqa: ANN401 - JSON or bytes
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
