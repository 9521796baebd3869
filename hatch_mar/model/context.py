"""`context`: what a handler knows about its model, its device and the requests of its batch.

One object lives as long as the worker; handlers keep things on it between batches.
"""

from __future__ import annotations

import copy
import operator
import os
import re
from typing import TYPE_CHECKING, Any

from hatch_mar.model.metrics import Metrics
from hatch_mar.model.protocol import STREAM_NEXT
from hatch_mar.model.rows import make_headers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hatch_mar.model.cuda.forward import Forward
    from hatch_mar.model.protocol import LoadOptions, OnPiece, Request, Response

SERVER_VERSION = "0.12.0"
"""The TorchServe whose contract the context keeps; handlers may look at it."""
BREAKS = re.compile(r"[\r\n\0]")
STATUSES = range(1000)
"""What fits the three digits of a status line."""


class RequestProcessor:
    """One request as the handler sees it: its headers, and the status and headers of its answer."""

    __slots__ = ("_headers", "_request", "phrase", "response_headers", "status")

    def __init__(
        self, request_header: Mapping[str, Any] | None = None, *, request: Request | None = None
    ) -> None:
        """Know `request_header`, or find the headers in `request` when somebody asks for them."""
        self._headers = None if request_header is None else dict(request_header)
        self._request = request
        self.status = 200
        self.phrase: str | None = None
        self.response_headers: dict[str, str] | None = None

    def get_request_properties(self) -> dict[str, Any]:
        """Return all headers, as `make_headers` describes them."""
        if self._headers is None:
            self._headers = {} if self._request is None else make_headers(self._request)
        return self._headers

    def get_request_property(self, key: str) -> Any:  # noqa: ANN401 - text, or a dict for a part
        """Return the header `key`: spelled like this if there is one, else in any case; or None."""
        headers = self.get_request_properties()
        if key in headers:
            return headers[key]
        wanted = key.lower()
        for name, value in headers.items():
            if name.lower() == wanted:
                return value
        return None

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the status of the answer.

        Raises:
            TypeError: `code` is no whole number.
            ValueError: it has not three digits, or there is a line break in the phrase.
        """
        status = operator.index(code)
        phrase = None if reason_phrase is None else str(reason_phrase)
        if status not in STATUSES:
            raise ValueError(f"response status {status}: there is no such status")
        if BREAKS.search(phrase or ""):
            raise ValueError(f"response status {status}: a line break in {phrase!r}")
        self.status, self.phrase = status, phrase

    def get_response_status_code(self) -> int:
        """Return the status of the answer."""
        return self.status

    def get_response_status_phrase(self) -> str | None:
        """Return the reason phrase of the answer, None until somebody sets the status."""
        return self.phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the answer.

        Raises:
            ValueError: a line break, with which a client's text could forge further headers.
        """
        name, text = str(key), str(value)
        if BREAKS.search(name) or BREAKS.search(text):
            raise ValueError(f"response header {name!r}: a line break in {text!r}")
        if self.response_headers is None:
            self.response_headers = {}
        self.response_headers[name] = text

    def get_response_headers(self) -> dict[str, str]:
        """Return the headers of the answer, set so far."""
        return self.response_headers or {}

    def get_response_header(self, key: str) -> str | None:
        """Return one header of the answer."""
        return self.get_response_headers().get(key)


_UNTOUCHED = RequestProcessor({})
"""Stands for the requests of which no handler has asked anything."""


class Context:
    """TorchServe's `Context`: same attributes, same methods, same constructor."""

    def __init__(  # noqa: PLR0917 - TorchServe's signature
        self,
        model_name: str,
        model_dir: str,
        manifest: Mapping[str, Any] | None,
        batch_size: int,
        gpu: int | None,
        mms_version: str = SERVER_VERSION,
        limit_max_image_pixels: bool = True,  # noqa: FBT001, FBT002 - TorchServe's signature
        metrics: Metrics | None = None,
        model_yaml_config: Mapping[str, Any] | None = None,
    ) -> None:
        """Describe a model; unit tests of handlers call this as they do with TorchServe."""
        self.model_name = model_name
        self.manifest = manifest
        self.system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "MMS",
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self.model_yaml_config: Mapping[str, Any] = (
            {} if model_yaml_config is None else model_yaml_config
        )
        self.metrics = Metrics(model_name) if metrics is None else metrics
        self.request_ids: dict[int, str] = {}
        self._requests: Sequence[Request] = ()
        self._processors: list[RequestProcessor] | None = [RequestProcessor({})]
        self.cl_socket: Any = None
        self.stopping_criteria: Any = None
        self.header_key_sequence_id = _sequence_header("ID", "ts_request_sequence_id")
        self.header_key_sequence_start = _sequence_header("START", "ts_request_sequence_start")
        self.header_key_sequence_end = _sequence_header("END", "ts_request_sequence_end")
        self.trusted_pickle: Sequence[str] | None = None
        self.max_gpu_memory: int | None = None
        self.forward: Forward | None = None
        """How the model runs, if its config has a section `cuda`."""
        self.is_accelerated = False
        """Whether the handler has asked for that, also in vain."""
        self.on_piece: OnPiece | None = None
        self.pieces: list[tuple[str, Response]] = []
        """Intermediate answers of this batch for which nobody listens."""
        self.has_streamed = False
        """Whether a client has some of this batch already."""

    def begin(self, requests: Sequence[Request]) -> None:
        """Forget the last batch and describe `requests`."""
        self.request_ids = {index: request.id for index, request in enumerate(requests)}
        self._requests = requests
        self._processors = None
        self.metrics.request_ids = self.request_ids
        self.has_streamed = False

    @property
    def request_processor(self) -> list[RequestProcessor]:
        """The requests of the batch; made when somebody looks, which many handlers never do."""
        if self._processors is None:
            self._processors = [RequestProcessor(request=request) for request in self._requests]
        return self._processors

    @request_processor.setter
    def request_processor(self, processors: list[RequestProcessor]) -> None:
        self._processors = processors

    def list_answers(self) -> Sequence[RequestProcessor]:
        """Return what is known of the answers, one each, to be read only."""
        if self._processors is None:
            return [_UNTOUCHED] * len(self._requests)
        return self._processors

    def send_pieces(self, pieces: Sequence[tuple[str, Response]]) -> None:
        """Send intermediate answers, each to the request with the id beside it."""
        self.has_streamed = True
        if self.on_piece is None:
            self.pieces += pieces
        else:
            self.on_piece(pieces)

    def accelerate(self, model: Any, device: Any) -> Forward | None:  # noqa: ANN401 - torch's
        """Return what to call in the place of `model`, which is on `device`.

        None where the config has no section `cuda`, or the model is not one of torch.

        Raises:
            HandlerError: the device cannot do what the section wants.
        """
        from hatch_mar.model.cuda.opening import open_forward  # noqa: PLC0415 - few models need it

        self.is_accelerated = True
        batch_size = self.system_properties["batch_size"]
        self.forward = open_forward(model, device, self.model_yaml_config, batch_size or 1)
        return self.forward

    def fork(self) -> Context:
        """Return a context for a batch of its own, beside others: handlers' extras are shared."""
        twin = copy.copy(self)
        twin.metrics = copy.copy(self.metrics)
        twin.metrics.drain()  # the twin's list is a new one from here on
        twin.pieces = []
        return twin

    def finish_stream(self) -> None:
        """Say in the headers of what was streamed that what follows is the last of it."""
        for processor in self.request_processor:
            if processor.get_response_header(STREAM_NEXT) == "true":
                processor.add_response_property(STREAM_NEXT, "false")

    def get_request_id(self, idx: int = 0) -> str | None:
        """Return the id of request `idx`, None if there is no such request."""
        return self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:  # noqa: ANN401 - see get_request_property
        """Return a header of request `idx`, or None."""
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """Return all headers of request `idx`."""
        return self.request_processor[idx].get_request_properties()

    def get_sequence_id(self, idx: int) -> str | None:
        """Return the sequence that request `idx` belongs to, if its client named one."""
        value: str | None = self.get_request_header(idx, self.header_key_sequence_id)
        return value

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the content type of answer `idx`; without it the answer has none."""
        self.request_processor[idx].add_response_property("content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """Return the content type of answer `idx`."""
        return self.request_processor[idx].get_response_header("content-type")

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the status of answer `idx`."""
        self.request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set the status of every answer of the batch."""
        for processor in self.request_processor:
            processor.report_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        """Return status and reason phrase of answer `idx`; no phrase until it is set."""
        processor = self.request_processor[idx]
        return processor.status, processor.phrase

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """Return the headers of answer `idx`, set so far."""
        return self.request_processor[idx].get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of answer `idx`."""
        self.request_processor[idx].add_response_property(key, value)


def make_context(options: LoadOptions) -> Context:
    """Return the context of a worker that loads `options`."""
    context = Context(
        options.model_name,
        options.model_dir,
        options.manifest,
        options.batch_size,
        options.gpu_id,
        limit_max_image_pixels=options.limit_max_image_pixels,
        metrics=Metrics(options.model_name, options.metrics),
        model_yaml_config=options.config,
    )
    context.trusted_pickle = options.trusted_pickle
    context.max_gpu_memory = options.max_gpu_memory
    return context


def _sequence_header(part: str, default: str) -> str:
    return os.environ.get(f"TS_REQUEST_SEQUENCE_{part}", default)
