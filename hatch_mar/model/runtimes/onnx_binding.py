"""ONNX Runtime with inputs and outputs bound to its device.

Bound, an input is copied into memory that the device keeps from one batch to the next, and outputs
come back in one pass behind the last kernel; otherwise ONNX Runtime asks its arena for memory, and
waits for the device, for each of them.
"""

# ruff: noqa: ANN401 - sessions and arrays are untyped

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hatch_mar.model.devices import DeviceName

SHAPES_KEPT = 16
"""Sets of input shapes whose memory on the device is kept: as many as there are usual batches."""


class BoundSession:
    """Runs a session as `InferenceSession.run` does, its inputs and outputs on `device`."""

    def __init__(self, session: Any, device: DeviceName) -> None:
        """Run `session`; memory is taken when the first batch of a shape comes."""
        self._session = session
        self._place = device.type, device.index or 0
        self._bindings: OrderedDict[tuple[Any, ...], tuple[Any, dict[str, Any]]] = OrderedDict()

    @property
    def shapes(self) -> int:
        """For how many sets of shapes memory is kept."""
        return len(self._bindings)

    def runs(self, session: Any) -> bool:
        """Tell whether this is `session`: a handler may have put another one in its place."""
        return session is self._session

    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Return the outputs called `names` for `feed`, arrays by input name."""
        if any(array.dtype == np.object_ for array in feed.values()):
            # Text has no place on a device.
            return list(self._session.run(list(names), dict(feed)))
        binding, inputs = self._bind(tuple(names), feed)
        for name, array in feed.items():
            inputs[name].update_inplace(np.ascontiguousarray(array))
        # What the last run put out would be taken for memory to write to, though what comes out now
        # may have another shape: the number of objects that are found is no input's.
        binding.clear_binding_outputs()
        for name in names:
            binding.bind_output(name, *self._place)
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())

    def _bind(self, names: tuple[str, ...], feed: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the binding for such shapes, and its inputs on the device."""
        key = names, *((name, array.shape, array.dtype.str) for name, array in feed.items())
        found = self._bindings.get(key)
        if found is not None:
            self._bindings.move_to_end(key)
            return found
        binding = self._session.io_binding()
        inputs = {
            name: onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                array.shape, array.dtype.type, *self._place
            )
            for name, array in feed.items()
        }
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        self._bindings[key] = binding, inputs
        if len(self._bindings) > SHAPES_KEPT:
            self._bindings.popitem(last=False)
        return binding, inputs
