"""Batches of few lengths: padded up to the next bucket, and what comes out cut back.

A compiled model and a CUDA graph are made for one shape. With buckets there are few shapes,
whatever the load. The rows that are added repeat the first one, so that nothing is in a batch that
no client has sent. A model whose rows affect each other must not be given buckets: that is its
author's word.
"""

# ruff: noqa: ANN401 - batches and outputs are nested tensors

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch

from hatch_mar.model.factory import rebuild, values_in


class Form(NamedTuple):
    """A batch, measured."""

    length: int
    shape: Hashable
    """What else it is: the nesting, and of each tensor the shape of a row and the type."""


class NotInRowsError(ValueError):
    """Some part of an output is not as long as the batch."""


def resolve_buckets(
    wanted: Literal[True] | Sequence[int] | None, batch_size: int
) -> tuple[int, ...]:
    """Return the lengths that batches may have, ascending, the last of which is `batch_size`.

    None that are longer: no batch comes that needs them. Without a wish there are none at all.
    """
    if wanted is None:
        return ()
    sizes = [2**power for power in range(batch_size.bit_length())] if wanted is True else wanted
    return (*sorted(size for size in sizes if size < batch_size), batch_size)


def choose_bucket(buckets: Sequence[int], length: int) -> int | None:
    """Return the shortest of `buckets` that holds `length` rows; None if there are more."""
    position = bisect_left(buckets, length)
    return buckets[position] if length and position < len(buckets) else None


def measure(batch: Any) -> Form | None:
    """Return the form of a tensor, or a tuple or mapping of them; None unless all is as long."""
    if isinstance(batch, torch.Tensor):
        return Form(len(batch), (batch.shape[1:], batch.dtype)) if batch.dim() else None
    if not isinstance(batch, Mapping | tuple) or not batch:
        return None
    forms = [measure(value) for value in values_in(batch)]
    known = [form for form in forms if form is not None]
    if len(known) < len(forms) or len({form.length for form in known}) > 1:
        return None
    names = tuple(batch) if isinstance(batch, Mapping) else ()
    return Form(known[0].length, (type(batch), names, tuple(form.shape for form in known)))


def change_tensors(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return `value` with `change` of every tensor in it in the tensor's place."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping | tuple) and value:
        return rebuild(value, [change_tensors(item, change) for item in values_in(value)])
    return [change_tensors(item, change) for item in value] if isinstance(value, list) else value


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor in `value`, in an order that its form decides."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for item in value if isinstance(value, list) else values_in(value):
            yield from tensors_in(item)


def pad(batch: Any, length: int) -> Any:
    """Return `batch`, which `measure` knows, with its first row repeated until it is `length`.

    Under the inference mode all of it was made there: torch compiles a model once more for tensors
    that were not.
    """

    def lengthen(rows: torch.Tensor) -> torch.Tensor:
        missing = length - len(rows)
        if missing:
            return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])])
        return rows if rows.is_inference() else rows.clone()

    return change_tensors(batch, lengthen)


def fill(buffers: Any, batch: Any) -> None:
    """Write `batch` into `buffers`, of its form and at least as long, padded as by `pad`."""
    for buffer, rows in zip(tensors_in(buffers), tensors_in(batch), strict=True):
        buffer[: len(rows)].copy_(rows)
        if len(rows) < len(buffer):
            buffer[len(rows) :].copy_(rows[:1])


def cut(output: Any, rows: int, length: int) -> Any:
    """Return the first `length` of the `rows` that every part of `output` has; tensors are views.

    Raises:
        NotInRowsError: a part has another length, or none.
    """
    if isinstance(output, torch.Tensor):
        found = len(output) if output.dim() else None
    elif isinstance(output, Mapping | tuple) and output:
        parts = (None if part is None else cut(part, rows, length) for part in values_in(output))
        return rebuild(output, list(parts))
    else:
        found = len(output) if isinstance(output, list) else None
    if found != rows:
        raise NotInRowsError(f"a part of the output of {rows} rows has {found or 'no'} rows")
    return output[:length]
