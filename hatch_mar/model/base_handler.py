"""`BaseHandler`: TorchServe's base class, for handlers that are subclasses of it, and by itself.

Same attributes, same hooks. What it adds: it loads more kinds of model, its `preprocess` takes the
numbers in a request's JSON, its `inference` runs ONNX models, and importing it imports no torch.
"""

# ruff: noqa: ANN401 - models, tensors and arrays come from libraries that are loaded lazily

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hatch_mar.model import profiling
from hatch_mar.model.compilation import compile_model
from hatch_mar.model.factory import divide, plain
from hatch_mar.model.faults import PredictionException
from hatch_mar.model.json_text import read_json
from hatch_mar.model.labels import MAPPING_FILE, load_label_mapping
from hatch_mar.model.runtimes import choose_runtime, open_runtime
from hatch_mar.model.source import read_source
from hatch_mar.model.timing import timed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.context import Context
    from hatch_mar.model.runtimes import Runtime
    from hatch_mar.model.source import Source

logger = logging.getLogger("hatch_mar.model")


class BaseHandler:
    """Loads the model of an archive and answers batches in three steps, each of which is a hook."""

    def __init__(self) -> None:
        """Hold nothing; `initialize` does the work."""
        self.model: Any = None
        self.mapping: dict[str, str] | None = None
        self.device: Any = None
        self.initialized = False
        self.context: Any = None
        self.model_pt_path: str | None = None
        self.manifest: Mapping[str, Any] | None = None
        self.map_location: str | None = None
        self.explain = False
        self.target = 0
        self.profiler_args: dict[str, Any] = {}
        self.model_yaml_config: Mapping[str, Any] = {}
        self._runtime: Runtime | None = None
        self._source: Source | None = None
        self._accelerated: Any = None
        self._count: int | None = None
        self._divisible: bool | None = None

    def initialize(self, context: Context) -> None:
        """Load the model on its device, and the labels in `index_to_name.json`.

        Raises:
            HandlerError: the archive holds nothing that can be loaded.
        """
        self.context = context
        self.manifest = context.manifest
        self.model_yaml_config = context.model_yaml_config or {}
        self._source = source = read_source(context)
        self.model_pt_path = None if source.weights is None else str(source.weights)
        name = choose_runtime(source)
        self._runtime = open_runtime(name)
        self.device = self._runtime.choose_device(source.gpu_id)
        self.map_location = self.device.type
        if name == "eager":
            model_file = source.model_file.name if source.model_file else ""
            directory = str(source.directory)
            self.model = self._load_pickled_model(directory, model_file, self.model_pt_path)
        elif name in ("torchscript", "tensorrt"):
            self.model = self._load_torchscript_model(self.model_pt_path)
        else:
            self.model = self._runtime.load(source, self.device)
        self._accelerate()
        if self._accelerated is None and "pt2" in self.model_yaml_config:
            self.model = compile_model(self.model, self.model_yaml_config)
        logger.debug("loaded %s with the runtime %s on %s", source.weights, name, self.device)
        self.mapping = load_label_mapping(source.directory / MAPPING_FILE)
        self.initialized = True

    def _accelerate(self) -> None:
        """Let the model run as the section `cuda` says, if the config has one."""
        if "cuda" in self.model_yaml_config and hasattr(self.context, "accelerate"):
            self._accelerated = self.context.accelerate(self.model, self.device)
            if self._accelerated is not None:
                self.model = self._accelerated.model

    def _load_pickled_model(
        self,
        model_dir: str,  # noqa: ARG002 - subclasses override this with TorchServe's signature
        model_file: str,  # noqa: ARG002
        model_pt_path: str | None,  # noqa: ARG002
    ) -> Any:
        """Return an eager model; a hook that TorchServe's handlers override."""
        return self._load_as_described()

    def _load_torchscript_model(self, model_pt_path: str | None) -> Any:  # noqa: ARG002
        """Return a TorchScript model; a hook that TorchServe's handlers override."""
        return self._load_as_described()

    def _load_as_described(self) -> Any:
        assert self._runtime is not None
        assert self._source is not None
        return self._runtime.load(self._source, self.device)

    @timed
    def preprocess(self, data: Any) -> Any:
        """Return the model's input: the numbers in `data` or `body` of each row, stacked.

        Raises:
            PredictionException: (400) a row holds something else.
        """
        values = data if hasattr(data, "shape") else [_read_value(row) for row in data]
        return self._get_runtime().make_batch(values, self.device)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the model's output for `data`; further arguments go to the model."""
        if self._accelerated is not None:
            if self._accelerated.model is not self.model:  # a subclass has put another in its place
                self._accelerate()
            return self._accelerated(data, *args, **kwargs)
        return self._get_runtime().infer(self.model, data, self.device, *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        """Return one element per request, as JSON can say it.

        A tensor is as long as the batch. Whether several outputs are can only be seen in a batch of
        one: until there was one, a longer batch is refused, and run again in halves.
        """
        if len(getattr(data, "shape", ())):
            items: list[Any] = data.tolist()
            return items
        if self._count is None:
            return list(plain(data))
        parts = divide(data, self._count)
        if self._count == 1:
            self._divisible = parts is not None
            return [plain(data if parts is None else parts[0])]
        if parts is None or not self._divisible:
            raise ValueError(f"the model's output cannot be divided among {self._count} requests")
        return [plain(part) for part in parts]

    def handle(self, data: Sequence[Any], context: Context) -> list[Any]:
        """Answer one batch: preprocess, inference, postprocess; or explain, or describe."""
        started = time.perf_counter()
        self.context = context
        self._count = len(data)
        if profiling.is_enabled():
            output, _ = self._infer_with_profiler(data)
        elif self._is_describe():
            output = [self.describe_handle()]
        else:
            prepared = self.preprocess(data)
            if self._is_explain():
                output = self.explain_handle(prepared, data)
            else:
                output = self.postprocess(self.inference(prepared))
        elapsed = round((time.perf_counter() - started) * 1000, 2)
        context.metrics.add_time("HandlerTime", elapsed, None, "ms")
        return output

    def _infer_with_profiler(self, data: Sequence[Any]) -> tuple[list[Any], Any]:
        """Return the answers and the profile of one batch; `profiler_args` say how to profile."""
        self.manifest = self.manifest or self.context.manifest
        with profiling.open_profiler(self.profiler_args, self.manifest) as profile:
            with profiling.record("preprocess"):
                prepared = self.preprocess(data)
            if self._is_explain():
                with profiling.record("explain"):
                    output = self.explain_handle(prepared, data)
            else:
                with profiling.record("inference"):
                    predicted = self.inference(prepared)
                with profiling.record("postprocess"):
                    output = self.postprocess(predicted)
        logger.info(profile.key_averages().table(sort_by="cpu_time_total", row_limit=10))
        return output, profile

    def explain_handle(self, data_preprocess: Any, raw_data: Sequence[Any]) -> list[Any]:
        """Return what `get_insights` says of the first row; its `target` says of which class."""
        row = raw_data[0]
        inputs: Any = None
        target: Any = 0
        if isinstance(row, Mapping):
            inputs = row.get("data") or row.get("body")
            target = row.get("target") or 0
        return self.get_insights(data_preprocess, inputs, target)

    def get_insights(self, tensor_data: Any, raw_data: Any, target: Any) -> list[Any]:  # noqa: ARG002
        """Explain a prediction; subclasses know how.

        Raises:
            PredictionException: (501) this handler does not.
        """
        raise PredictionException("This model does not explain its predictions", 501)

    def describe_handle(self) -> Any:
        """Return what `GET /models/{name}?customized=true` tells about the model; nothing here."""
        return None

    def get_device(self) -> Any:
        """Return the device of the model."""
        return self.device

    def _is_explain(self) -> bool:
        if self.context is None or self.context.get_request_header(0, "explain") != "True":
            return False
        self.explain = True
        return True

    def _is_describe(self) -> bool:
        context = self.context
        return context is not None and bool(context.get_request_header(0, "describe") == "True")

    def _get_runtime(self) -> Runtime:
        """Return the runtime; a subclass that loads its model itself has brought a torch module."""
        if self._runtime is None:
            self._runtime = open_runtime("eager")
        return self._runtime


def _read_value(row: Any) -> Any:
    """Return what a row holds, from JSON also where the client did not say it is."""
    if not isinstance(row, Mapping):
        return row
    value = row.get("data")
    value = row.get("body") if value is None else value
    if isinstance(value, (bytes, bytearray, str)):
        try:
            return read_json(value if isinstance(value, str) else _decode(value))
        except ValueError:
            raise PredictionException(
                "the body must be JSON: numbers, or lists of them", 400
            ) from None
    return value


def _decode(data: bytes | bytearray) -> str:
    """Return the text of JSON in any of its encodings, as `json.loads` finds it out."""
    return data.decode(json.detect_encoding(data), "surrogatepass")
