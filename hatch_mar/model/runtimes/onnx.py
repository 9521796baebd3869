"""ONNX models, run by ONNX Runtime; no torch is involved."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from hatch_mar.errors import HandlerError
from hatch_mar.model.devices import DeviceName, name_device
from hatch_mar.model.runtimes.onnx_binding import BoundSession
from hatch_mar.model.runtimes.onnx_providers import choose_providers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hatch_mar.model.source import Source

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
"""ONNX Runtime's names of element types; it refuses anything but the exact one."""

_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
"""The option that says where the external data of a model is that comes as bytes."""

logger = logging.getLogger("hatch_mar.model")


class ModelRuntime:
    """Batches are arrays, or mappings of input name to array."""

    def __init__(self) -> None:
        """Bind nothing to the device yet."""
        self._bound: BoundSession | None = None

    def choose_device(self, gpu_id: int | None) -> DeviceName:
        """Return the GPU if this ONNX Runtime can use one, else the CPU."""
        if gpu_id is None or "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            return name_device(gpu_id)
        logger.warning("gpu %s: this ONNX Runtime has no CUDA; running on the CPU", gpu_id)
        return name_device(None)

    def load(self, source: Source, device: DeviceName) -> Any:  # noqa: ANN401 - untyped library
        """Return an `InferenceSession`; see `Runtime.load`."""
        assert source.weights is not None
        options = onnxruntime.SessionOptions()
        # ONNX Runtime has a thread pool of its own, which does not heed what bounds torch's.
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
        limit = source.max_gpu_memory
        providers = choose_providers(
            device, source.cuda, model=source.weights, max_gpu_memory=limit
        )
        try:
            session = _open_session(source.weights, options, providers)
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise HandlerError(f"{source.weights.name}: cannot be loaded: {error}") from error
        if source.cuda is not None and source.cuda.io_binding:
            self._bound = BoundSession(session, device)
        return session

    def make_batch(self, values: Any, device: DeviceName) -> Any:  # noqa: ANN401, ARG002
        """Stack `values`; objects give one array per key."""
        if isinstance(values, np.ndarray):
            return values
        first = values[0]
        if isinstance(first, Mapping):
            if any(not isinstance(one, Mapping) or one.keys() != first.keys() for one in values):
                raise ValueError("the inputs have different keys")
            return {key: _stack([value[key] for value in values]) for key in first}
        return _stack(values)

    def infer(self, model: Any, batch: Any, device: DeviceName, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, ARG002
        """Run the session on an array, a sequence of arrays, or arrays by input name.

        One output comes back as it is, several as a dict by output name. A model whose batch
        dimension is fixed gets the batch in pieces of that size.
        """
        feed = _make_feed(model.get_inputs(), batch)
        names = [output.name for output in model.get_outputs()]
        bound = self._bound
        run = model.run if bound is None or not bound.runs(model) else bound.run
        arrays = _run_in_pieces(model.get_inputs()[0].shape, run, names, feed)
        return arrays[0] if len(arrays) == 1 else dict(zip(names, arrays, strict=True))


def _open_session(model: Path, options: Any, providers: Sequence[Any]) -> Any:  # noqa: ANN401
    """Open `model`; ONNX Runtime maps the external data that it names.

    Since 1.24 it refuses data that is a link to somewhere else, such as into a cache. Such files
    were put there by who made the directory, so the model is told of where they really are.
    """
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=providers)
    except Exception as error:
        found = _resolve_data(model) if "External data path" in str(error) else None
        if found is None:
            raise
        graph, root = found
        options.add_session_config_entry(_DATA_FOLDER, str(root))
        return onnxruntime.InferenceSession(graph, options, providers=providers)


def _resolve_data(model: Path) -> tuple[bytes, Path] | None:
    """Return the graph of `model` with its external data named from a directory that has it all.

    None if any of it is not a file beside the model, or the package `onnx` is not installed.
    """
    try:
        import onnx  # noqa: PLC0415 - most models need it not
    except ImportError:
        logger.warning("%s: its data is behind a link; `pip install onnx` to follow it", model.name)
        return None
    graph = onnx.load(str(model), load_external_data=False)
    entries = [
        entry
        for tensor in _tensors_of(graph.graph)
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    directory = Path(os.path.normpath(model.parent.absolute()))
    places = [Path(os.path.normpath(directory / entry.value)) for entry in entries]
    if not all(place.is_relative_to(directory) and place.is_file() for place in places):
        return None
    files = [place.resolve() for place in places]
    root = Path(os.path.commonpath([file.parent for file in files]))
    for entry, file in zip(entries, files, strict=True):
        entry.value = str(file.relative_to(root))
    return graph.SerializeToString(), root


def _tensors_of(graph: Any) -> Iterator[Any]:  # noqa: ANN401 - onnx is untyped
    yield from graph.initializer
    for attribute in (each for node in graph.node for each in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors_of(inner)


def _stack(values: Sequence[Any]) -> Any:  # noqa: ANN401 - arrays
    arrays = [np.asarray(value) for value in values]  # ragged lists raise ValueError
    if any(array.dtype == np.object_ for array in arrays):
        raise ValueError("the inputs are not numbers or text")
    return np.stack(arrays)


def _make_feed(inputs: Sequence[Any], batch: Any) -> dict[str, Any]:  # noqa: ANN401 - arrays
    """Return `batch` by input name, in the element types that the model declares."""
    names = [one.name for one in inputs]
    if isinstance(batch, Mapping):
        wrong = set(names) ^ set(batch)
        if wrong:
            raise ValueError(f"the model takes the inputs {names}, got {list(batch)}")
        arrays = batch
    else:
        several = batch if isinstance(batch, list | tuple) else (batch,)
        if len(several) != len(names):
            raise ValueError(f"the model takes {len(names)} inputs {names}, got {len(several)}")
        arrays = dict(zip(names, several, strict=True))
    return {one.name: _as_array(arrays[one.name], DTYPES.get(one.type)) for one in inputs}


def _as_array(value: Any, dtype: Any) -> Any:  # noqa: ANN401 - arrays, or tensors of a handler
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=dtype)


def _run_in_pieces(
    shape: Sequence[Any], run: Callable[..., Any], names: list[str], feed: dict[str, Any]
) -> list[Any]:
    size = shape[0] if shape else None
    count = len(next(iter(feed.values()))) if shape else 0
    if not isinstance(size, int) or size < 1 or count == size or not count:
        outputs: list[Any] = run(names, feed)
        return outputs
    pieces = []
    for start in range(0, count, size):
        piece = {name: _pad(array[start : start + size], size) for name, array in feed.items()}
        pieces.append(run(names, piece))
    return [np.concatenate(column)[:count] for column in zip(*pieces, strict=True)]


def _pad(array: Any, size: int) -> Any:  # noqa: ANN401 - arrays
    """Repeat the last item of `array` until it has `size`."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
