"""gRPC, with a client that knows nothing but the `.proto` files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from hatch_mar.api.rpc.schema import INFERENCE, MANAGEMENT, OPEN_INFERENCE, message, methods
from tests.support.archives import write_mar
from tests.support.runner import Runner, start_runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

HANDLER = """
    from ts.handler_utils.utils import send_intermediate_predict_response
    from ts.utils.util import PredictionException

    def handle(data, context):
        if data is None:
            return None
        (row,) = data
        wish = bytes(row.get("do", b"")).decode()
        if wish.startswith("error"):
            raise PredictionException("asked for", int(wish.removeprefix("error")))
        if wish == "raise":
            raise RuntimeError("no")
        if wish.startswith("stream"):
            for number in range(int(wish.removeprefix("stream"))):
                send_intermediate_predict_response(
                    [f"part {number}"], context.request_ids, "ok", 200, context
                )
            return ["last"]
        if wish == "break":
            send_intermediate_predict_response(["part"], context.request_ids, "ok", 200, context)
            raise RuntimeError("no")
        if "body" in row:
            (tensor, *_) = row["body"]["inputs"]
            name = row["body"]["model_name"]
            return [{"model_name": name, "outputs": [{**tensor, "name": "out"}]}]
        headers = context.get_all_request_header(0)
        seen = {key: [type(value).__name__, bytes(value).decode()] for key, value in row.items()}
        return [{"row": seen, "headers": sorted(headers)}]
"""
SLOW = """
    import time

    def handle(data, context):
        if data is None:
            return
        time.sleep(0.1)
        return ["ok"] * len(data)
"""
STATUS = """
syntax = "proto3";
package google.rpc;
import "google/protobuf/any.proto";
message Status {
  int32 code = 1;
  string message = 2;
  repeated google.protobuf.Any details = 3;
}
"""
"""As googleapis has it."""


@dataclass(frozen=True, slots=True)
class Port:
    """A channel to one port."""

    channel: grpc.Channel
    metadata: Sequence[tuple[str, str]] = ()

    def call(self, service: str, method_name: str, /, **values: Any) -> Any:
        """Return the answer, a list of them where the method streams."""
        (method,) = (each for each in methods(service) if each.name == method_name)
        shapes = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, True): self.channel.stream_stream,
        }
        invoke = shapes[method.client_streaming, method.server_streaming](
            f"/{service}/{method_name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message(method.output_type.full_name).FromString,
        )
        make = message(method.input_type.full_name)
        wishes = iter([make(**each) for each in values["each"]]) if "each" in values else None
        answer = invoke(wishes or make(**values), timeout=30, metadata=self.metadata)
        return list(answer) if method.server_streaming else answer

    def refusal(self, service: str, name: str, /, **values: Any) -> tuple[str, str]:
        """Return code and description of what must be refused."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(service, name, **values)
        return caught.value.code().name, caught.value.details()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    write_mar(store, "m", HANDLER)
    return store


def _port(runner: Runner, purpose: str) -> Port:
    found = re.search(rf"^gRPC: .*?\b{purpose} (\S+?)(,|$)", runner.output(), re.MULTILINE)
    assert found is not None, runner.output()
    return Port(grpc.insecure_channel(found[1]))


@pytest.fixture(scope="module")
def runner(store: Path) -> Iterator[Runner]:
    flags = ("--model-store", str(store), "--models", "all", "--enable-model-api")
    with start_runner(*flags, "--grpc-port", "0", "--grpc-management-port", "0") as runner:
        assert runner.exited() is None, runner.output()
        yield runner


@pytest.fixture(scope="module")
def inference(runner: Runner) -> Port:
    return _port(runner, "inference")


@pytest.fixture(scope="module")
def management(runner: Runner) -> Port:
    return _port(runner, "management")


def test_ping(inference: Port) -> None:
    assert inference.call(INFERENCE, "Ping").health == '{\n  "status": "Healthy"\n}'


def test_predictions(inference: Port) -> None:
    answer = inference.call(INFERENCE, "Predictions", model_name="m", input={"data": b"x"})
    found = json.loads(answer.prediction)
    assert found == {"row": {"data": ["bytearray", "x"]}, "headers": ["data"]}


@pytest.mark.parametrize(
    ("wish", "code", "text"),
    [
        *(
            (f"error{status}", code, "asked for")
            for status, code in (
                (400, "INVALID_ARGUMENT"),
                (403, "PERMISSION_DENIED"),
                (404, "NOT_FOUND"),
                (409, "ABORTED"),
                (500, "INTERNAL"),
                (503, "UNAVAILABLE"),
                (507, "INTERNAL"),
            )
        ),
        ("raise", "UNAVAILABLE", "Prediction failed"),
    ],
)
def test_a_failure_has_torchserves_code_and_words(
    inference: Port, wish: str, code: str, text: str
) -> None:
    refusal = inference.refusal(
        INFERENCE, "Predictions", model_name="m", input={"do": wish.encode()}
    )
    assert refusal == (code, f"{text}\norg.pytorch.serve.http.InternalServerException")


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions"])
@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "Parameter model_name is required.\nBadRequestException.()"),
        (
            {"model_name": "no"},
            "Model not found: no\norg.pytorch.serve.archive.model.ModelNotFoundException",
        ),
        (
            {"model_name": "m", "model_version": "9"},
            (
                "Model version: 9 does not exist for model: m\n"
                "org.pytorch.serve.archive.model.ModelVersionNotFoundException"
            ),
        ),
    ],
)
def test_no_such_model(inference: Port, method: str, values: dict[str, Any], text: str) -> None:
    assert inference.refusal(INFERENCE, method, **values) == ("INTERNAL", text)


def test_a_stream(inference: Port) -> None:
    values = {"model_name": "m", "input": {"do": b"stream3"}}
    answers = inference.call(INFERENCE, "StreamPredictions", **values)
    assert [answer.prediction for answer in answers] == [b"part 0", b"part 1", b"part 2", b"last"]
    whole = inference.call(INFERENCE, "Predictions", **values)
    assert whole.prediction == b"part 0part 1part 2last"


def test_a_long_stream_arrives_whole(inference: Port) -> None:
    values = {"model_name": "m", "input": {"do": b"stream500"}}
    assert len(inference.call(INFERENCE, "StreamPredictions", **values)) == 501


def test_a_stream_that_breaks(inference: Port) -> None:
    code, text = inference.refusal(
        INFERENCE, "StreamPredictions", model_name="m", input={"do": b"break"}
    )
    assert (code, text.partition("\n")[0]) == ("UNAVAILABLE", "Prediction failed")


def test_requests_of_a_sequence(inference: Port) -> None:
    wishes = [
        {"model_name": "m", "sequence_id": "s", "input": {"data": b"1"}},
        {"model_name": "no", "sequence_id": "s", "input": {"data": b"2"}},
        {"model_name": "m", "input": {"data": b"3"}},
        {"model_name": "m", "sequence_id": "t", "input": {"data": b"4"}},
    ]
    first, second, third, fourth = inference.call(INFERENCE, "StreamPredictions2", each=wishes)
    assert "ts_request_sequence_id" in json.loads(first.prediction)["headers"]
    assert (first.sequence_id, fourth.sequence_id) == ("s", "t")
    assert (second.status.code, second.status.message) == (13, "Model not found: no")
    assert third.status.message == "Parameter sequenceId is required."


def test_management(management: Port) -> None:
    def ask(name: str, **values: Any) -> str:
        answer: str = management.call(MANAGEMENT, name, **values).msg
        return answer

    registered = ask("RegisterModel", url="m-1.0.mar", model_name="n", initial_workers=1)
    assert registered == "Processing worker updates..."
    names = [model["modelName"] for model in json.loads(ask("ListModels"))["models"]]
    assert names == ["m", "n"]
    assert json.loads(ask("ListModels", limit=1, next_page_token=1))["nextPageToken"] == "2"
    scaled = ask("ScaleWorker", model_name="n", min_worker=2, synchronous=True)
    assert scaled == "Workers scaled to 2 for model: n"
    (described,) = json.loads(ask("DescribeModel", model_name="n"))
    assert described["minWorkers"] == 2
    chosen = ask("SetDefault", model_name="n", model_version="1.0")
    assert chosen == 'Default version successfully updated for model "n" to "1.0"'
    assert ask("UnregisterModel", model_name="n") == 'Model "n" unregistered'


@pytest.mark.parametrize(
    ("name", "values", "refusal"),
    [
        (
            "RegisterModel",
            {},
            (
                "INVALID_ARGUMENT",
                "Parameter url is required.\norg.pytorch.serve.http.BadRequestException",
            ),
        ),
        (
            "RegisterModel",
            {"url": "none.mar"},
            (
                "NOT_FOUND",
                (
                    "Model not found at: none.mar\n"
                    "org.pytorch.serve.archive.model.ModelNotFoundException"
                ),
            ),
        ),
        (
            "RegisterModel",
            {"url": "m-1.0.mar"},
            (
                "ABORTED",
                (
                    "Model version 1.0 is already registered for model m\n"
                    "org.pytorch.serve.http.ConflictStatusException"
                ),
            ),
        ),
        (
            "ScaleWorker",
            {"model_name": "m", "min_worker": 2, "max_worker": 1},
            (
                "INVALID_ARGUMENT",
                (
                    "max_worker cannot be less than min_worker.\n"
                    "org.pytorch.serve.http.BadRequestException"
                ),
            ),
        ),
        (
            "SetDefault",
            {"model_name": "m", "model_version": "9"},
            (
                "NOT_FOUND",
                (
                    "Model version 9 does not exist for model m\n"
                    "org.pytorch.serve.archive.model.ModelVersionNotFoundException"
                ),
            ),
        ),
    ],
)
def test_what_management_refuses(
    management: Port, name: str, values: dict[str, Any], refusal: tuple[str, str]
) -> None:
    assert management.refusal(MANAGEMENT, name, **values) == refusal


def test_each_port_has_its_own_services(inference: Port, management: Port) -> None:
    assert management.refusal(INFERENCE, "Ping")[0] == "UNIMPLEMENTED"
    assert inference.refusal(MANAGEMENT, "ListModels")[0] == "UNIMPLEMENTED"


def test_open_inference(inference: Port) -> None:
    assert inference.call(OPEN_INFERENCE, "ServerLive").live
    assert inference.call(OPEN_INFERENCE, "ServerReady").ready
    assert inference.call(OPEN_INFERENCE, "ModelReady", name="m").ready
    assert inference.refusal(OPEN_INFERENCE, "ServerMetadata")[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    ("datatype", "field", "values", "back"),
    [
        ("FP32", "fp32_contents", [1.5, 2.0], [1.5, 2.0]),
        ("INT64", "int64_contents", [3, -4], [3, -4]),
        ("BOOL", "bool_contents", [True, False], [True, False]),
        ("BYTES", "bytes_contents", [b"ab", b"\xff"], [b"YWI=", b"/w=="]),
    ],
)
def test_tensors_go_through_the_handler(
    inference: Port, datatype: str, field: str, values: list[Any], back: list[Any]
) -> None:
    tensor = {"name": "in", "datatype": datatype, "shape": [2], "contents": {field: values}}
    answer = inference.call(OPEN_INFERENCE, "ModelInfer", model_name="m", inputs=[tensor])
    (output,) = answer.outputs
    assert (answer.model_name, output.name, list(output.shape)) == ("m", "out", [2])
    assert list(getattr(output.contents, field)) == back


def test_a_handler_that_does_not_speak_kserve(inference: Port) -> None:
    code, text = inference.refusal(OPEN_INFERENCE, "ModelInfer", model_name="m")
    assert code in {"INTERNAL", "UNAVAILABLE"}
    assert text.endswith("InternalServerException")


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions", "StreamPredictions2"])
def test_what_is_no_message_is_refused_in_words(inference: Port, method: str) -> None:
    path, rubbish, channel = f"/{INFERENCE}/{method}", b"\xff\xff\xff", inference.channel
    asks: dict[str, Callable[[], Any]] = {
        "Predictions": lambda: channel.unary_unary(path)(rubbish, timeout=30),
        "StreamPredictions": lambda: list(channel.unary_stream(path)(rubbish, timeout=30)),
        "StreamPredictions2": lambda: list(
            channel.stream_stream(path)(iter([rubbish]), timeout=30)
        ),
    }
    with pytest.raises(grpc.RpcError) as caught:
        asks[method]()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().endswith(".inference.PredictionsRequest.")


def test_a_call_that_would_be_answered_too_late_is_refused_at_once(tmp_path: Path) -> None:
    with start_runner(str(write_mar(tmp_path, "slow", SLOW)), "--grpc-port", "0") as runner:
        port = _port(runner, "inference")
        for _ in range(3):  # what a request costs has to be known
            port.call(INFERENCE, "Predictions", model_name="slow")
        wish = message("inference.PredictionsRequest")(model_name="slow").SerializeToString()
        predict = port.channel.unary_unary(f"/{INFERENCE}/Predictions")
        calls = [predict.future(wish) for _ in range(30)]
        calls[0].result(timeout=30)
        with pytest.raises(grpc.RpcError) as caught:
            predict(wish, timeout=1)
        counts = httpx.get(f"{runner.management_url}/models/slow/batching").json()["counts"]
        for call in calls:
            call.cancel()
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details().endswith(".ServiceUnavailableException")
    assert counts["refusedWait"] == 1


def test_control_is_off_unless_asked_for(store: Path) -> None:
    flags = ("--model-store", str(store), "--models", "all", "--grpc-management-port", "0")
    with start_runner(*flags) as runner:
        refusal = _port(runner, "management").refusal(MANAGEMENT, "RegisterModel", url="m-1.0.mar")
    assert refusal == (
        "PERMISSION_DENIED",
        "Model API disabled\norg.pytorch.serve.archive.model.ModelException",
    )


def test_management_off_loopback_is_refused(store: Path) -> None:
    flags = ("--management-host", "0.0.0.0", "--grpc-management-port", "0")
    environ = {"HATCH_MAR_MANAGEMENT_TOKEN": "s3cret"}
    with start_runner(str(store / "m-1.0.mar"), *flags, env=environ, wait="no") as runner:
        assert runner.process.wait(30) == 2
        assert "gRPC's management is on loopback alone" in runner.output()


def test_the_descriptors_are_those_of_the_files(tmp_path: Path) -> None:
    protos = files("hatch_mar.api.rpc").joinpath("protos")
    status = tmp_path / "google" / "rpc" / "status.proto"
    status.parent.mkdir(parents=True)
    status.write_text(STATUS)
    made = tmp_path / "made.binpb"
    roots = (protos, tmp_path, files("grpc_tools").joinpath("_proto"))
    names = ["inference.proto", "management.proto", "open_inference.proto"]
    arguments = [*(f"-I{root}" for root in roots), f"--descriptor_set_out={made}", *names]
    assert protoc.main(["protoc", *arguments]) == 0
    committed = FileDescriptorSet.FromString(protos.joinpath("torchserve.binpb").read_bytes())
    ours = {file.name: file for file in committed.file}
    for file in FileDescriptorSet.FromString(made.read_bytes()).file:
        assert file == ours[file.name]
