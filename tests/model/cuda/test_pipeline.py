"""Batches overlap, on a device that is made of CPU tensors and catches who is too early."""

from __future__ import annotations

import gc
import json
import logging
import random
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from hatch_mar.model.cuda.pipeline import open_pipeline  # noqa: E402 - it needs torch
from hatch_mar.serve.worker.loop import DeviceLostError, Loop  # noqa: E402
from hatch_mar.serve.worker.main import choose_loop  # noqa: E402
from tests.support.door import Door  # noqa: E402
from tests.support.fake_cuda import FakeLayer, out_of_memory  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hatch_mar.model.servable import LoadedModel
    from tests.support.models import Ask, Load, MakeModel, RunPython

    Open = Callable[..., tuple[LoadedModel, Any, FakeLayer]]
    """Returns the model, its stages if it has some, and their device."""

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

FACTORY = """
import threading
import torch
from hatch_mar import handler_factory
from ts.utils.util import PredictionException

log, gates = [], {}
note = log.append  # which nobody takes for a change

def wait(name):
    note(name)
    if name in gates:
        assert gates[name].wait(30), name

def preprocess(sample):
    wait(f"pre {sample[0]:g}")
    if sample[0] == 400:
        raise PredictionException("no such number", 400)
    if sample[0] == 500:
        raise RuntimeError("cannot be read")
    if sample[0] == 99:
        raise SystemExit(3)
    return torch.tensor(sample)

class Net(torch.nn.Module):
    def forward(self, x):
        wait(f"run {x[0, 0]:g}")
        if (x == 501).any():
            raise RuntimeError("cannot be computed")
        return x * 2

def postprocess(output):
    wait(f"post {output[0] / 2:g}")
    if output[0] == 1004:
        raise RuntimeError("cannot be told")
    return output

handle = handler_factory(Net, preprocess, postprocess)
"""

HANDLER = """
import torch
from ts.torch_handler.base_handler import BaseHandler

class Handler(BaseHandler):
    def initialize(self, context):
        self.context = context
        self.device = torch.device("cpu")
        self.model = lambda x: x * 2

    def preprocess(self, data):
        rows = [row["body"] for row in data]
        self.context.metrics.add_counter("rows", len(rows))
        return torch.tensor(rows).to(self.device)

    def postprocess(self, data):
        ids = self.context.request_ids
        return [[ids[index], *row] for index, row in enumerate(data.tolist())]
"""


@pytest.fixture
def open_model(make_model: MakeModel, load_model: Load) -> Iterator[Open]:
    """Load a handler and take it apart on a fake device, which must have no cause to complain."""
    layers = []

    def open_one(source: str, layer: FakeLayer | None = None, **options: Any) -> Any:
        layer = layer or FakeLayer()
        layers.append(layer)
        model = load_model(make_model({"handler.py": source}, **options))
        stages = open_pipeline(model, model._handler, layer)
        return model, stages, layer

    yield open_one
    gc.collect()
    assert [layer.flaws for layer in layers] == [[] for _ in layers]


def body(*numbers: float) -> bytes:
    return json.dumps(numbers).encode()


def say(responses: list[Any]) -> list[Any]:
    return [
        response.status if response.error else json.loads(bytes(response.body))
        for response in responses
    ]


def learn(model: LoadedModel, ask: Ask) -> None:
    """Let the factory know that outputs have parts."""
    model.predict([ask(body(0))])


def test_answers_are_those_of_the_plain_loop(open_model: Open, ask: Ask) -> None:
    model, stages, _ = open_model(FACTORY, batch_size=4)
    requests = [body(number, -number) for number in range(10)]
    expected = say(model.predict([ask(one) for one in requests]))
    with Door(model, stages, batch_size=4) as door:
        door.send(*requests)
        assert say(door.read(10)) == expected
    assert [len(batch.numbers) for batch in door.batches] == [4, 4, 2]
    assert door.counter[0] == 10


def test_a_batch_is_copied_before_the_one_in_front_of_it_is_finished(
    open_model: Open, ask: Ask
) -> None:
    model, stages, layer = open_model(FACTORY)
    learn(model, ask)
    handler = sys.modules["handler"]
    uploaded = threading.Event()
    handler.gates["post 1"] = uploaded
    handler.gates["run 1"] = threading.Event()
    original = layer.upload

    def upload(host: Any) -> Any:
        device = original(host)
        if len(layer.list_asked("upload")) == 2:
            uploaded.set()
        return device

    layer.upload = upload  # type: ignore[method-assign]

    with Door(model, stages) as door:
        door.send(body(1), body(2))
        while "pre 2" not in handler.log:  # the second is decoded while the first computes
            assert door.failure is None
        handler.gates["run 1"].set()
        assert say(door.read(2)) == [[2.0], [4.0]]
    log = handler.log
    assert log.index("pre 2") < log.index("post 1")
    streams = {asked.what: asked.stream for asked in layer.asked if asked.stream}
    assert streams["upload"] == "stream1"
    assert streams["download"] == "stream2"
    assert streams["done"] == "stream2"


def test_each_stream_waits_for_the_one_before(open_model: Open, ask: Ask) -> None:
    model, stages, layer = open_model(FACTORY)
    del layer.asked[:]
    passage = stages.begin([ask(body(1))])
    stages.prepare(passage)
    stages.compute(passage)
    assert say(stages.finish(passage)) == [[2.0]]
    stages.end(passage)
    asked = [(one.what, one.stream) for one in layer.asked if one.what not in ("pin", "keep")]
    assert asked == [
        ("upload", "stream1"),
        ("record", "stream1"),
        ("wait", "default"),
        ("record", "default"),
        ("wait", "stream2"),
        ("download", "stream2"),
        ("record", "stream2"),
        ("done", "stream2"),
        ("synchronize", "stream2"),
    ]
    assert model.context.forward is None


def test_a_handler_finds_the_request_of_its_own_batch(open_model: Open) -> None:
    model, stages, _ = open_model(HANDLER)
    with Door(model, stages) as door:
        door.send(*(body(number) for number in range(6)))
        answers = say(door.read(6))
    assert answers == [[f"r{number}", 2.0 * number] for number in range(6)]
    names = [measured.name for measured in model.drain_metrics()]
    assert names == [] or names.count("rows") == names.count("HandlerTime")


def test_between_batches_a_handler_has_no_request(open_model: Open, ask: Ask) -> None:
    model, stages, _ = open_model(HANDLER)
    model.predict([ask(body(1))])
    stages.begin([ask(body(2))])
    assert model.context.get_request_id(0) is None
    with pytest.raises(IndexError):
        model.context.get_request_header(0, "x")


@pytest.mark.parametrize("stage", ["400", "500", "501", "502"])
def test_a_batch_that_fails_takes_nobody_else_with_it(
    open_model: Open, ask: Ask, stage: str
) -> None:
    model, stages, _ = open_model(FACTORY, batch_size=2)
    learn(model, ask)
    bad = float(stage)
    with Door(model, stages, batch_size=2) as door:
        door.send(body(1), body(2), body(5), body(bad), body(6), body(7), body(8), body(9))
        answers = say(door.read(8))
    wrong = 400 if stage == "400" else 503
    assert answers == [[2], [4], [10], wrong, [12], [14], [16], [18]]
    assert door.counter[0] == 8


def test_a_batch_of_one_that_fails_stops_nobody(open_model: Open, ask: Ask) -> None:
    model, stages, layer = open_model(FACTORY)
    learn(model, ask)
    with Door(model, stages) as door:
        door.send(*(body(number) for number in (1, 400, 2, 502, 5, 500, 6)))
        assert say(door.read(7)) == [[2], 400, [4], 503, [10], 503, [12]]
    assert not layer.list_asked("empty_cache")


@pytest.mark.parametrize("call", ["pin", "upload", "record", "wait", "download", "done"])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2])
def test_memory_that_runs_out_beside_others_suffices_alone(
    open_model: Open, ask: Ask, call: str, number: int, size: int
) -> None:
    layer = FakeLayer(faults={(call, number): out_of_memory()})
    model, stages, _ = open_model(FACTORY, layer, batch_size=size)
    learn(model, ask)
    with Door(model, stages, batch_size=size) as door:
        door.send(*(body(number) for number in range(10, 18)))
        assert say(door.read(8)) == [[2.0 * number] for number in range(10, 18)]
    assert model._short == 1


@pytest.mark.parametrize("seed", range(3))
def test_whatever_fails_wherever_everybody_has_the_right_answer(
    open_model: Open, ask: Ask, seed: int
) -> None:
    chance = random.Random(seed)
    calls = ("pin", "upload", "record", "wait", "download", "done")
    faults = {(call, chance.randint(1, 40)): out_of_memory() for call in calls}
    threads = {"cuda": {"decodeThreads": seed + 1}}
    model, stages, _ = open_model(FACTORY, FakeLayer(faults=faults), batch_size=3, config=threads)
    learn(model, ask)
    expected = {400: 400, 500: 503, 501: 503, 502: 503}
    wanted = [chance.choice([*[1000 + number] * 20, *expected]) for number in range(120)]
    with Door(model, stages, batch_size=3) as door:
        left = [body(number) for number in wanted]
        while left:
            count = chance.randint(1, 12)
            door.send(*left[:count])
            del left[:count]
        answers = say(door.read(120))
    assert answers == [expected.get(number, [2 * number]) for number in wanted]
    assert door.counter[0] == 120
    assert len(stages._slots) == stages.batches


def test_a_device_that_is_lost_answers_what_it_had_and_gives_back_the_rest(
    open_model: Open, ask: Ask
) -> None:
    layer = FakeLayer()
    model, stages, _ = open_model(FACTORY, layer, batch_size=1, gpu_id=0)
    learn(model, ask)
    handler = sys.modules["handler"]
    handler.gates["pre 9"] = threading.Event()
    layer.kill_at("done", 2)
    with Door(model, stages) as door:
        door.send(body(1), body(2), body(9), body(5))
        door.read(2)
        handler.gates["pre 9"].set()  # only now: the loop waits for the thread that prepares it
        answers = say(door.read_to_end())
    assert answers == [[2.0], 507]
    assert isinstance(door.failure, DeviceLostError)
    assert door.counter[0] == 2
    assert "device-side assert" in model.device_fault


def test_a_handler_that_ends_the_process_leaves_the_answers_before_and_the_work_behind(
    open_model: Open, ask: Ask
) -> None:
    model, stages, _ = open_model(FACTORY)
    learn(model, ask)
    with Door(model, stages) as door:
        door.send(body(1), body(2), body(99), body(5), body(6))
        assert say(door.read_to_end()) == [[2.0], [4.0]]
    assert isinstance(door.failure, SystemExit)
    assert door.counter[0] == 3


WORKER = """
import json, socket, sys, threading
from hatch_mar.serve.worker.main import load, serve
import hatch_mar.model.loading
from hatch_mar.model.cuda.pipeline import open_pipeline
from hatch_mar.model.protocol import Part, Request
from hatch_mar.serve.channel import decode_replies, encode_requests
from hatch_mar.serve.frames import FrameReader, Kind, decode_json, encode_frame, encode_json
from hatch_mar.serve.frames import receive
from hatch_mar.serve.packing import pack_request
from tests.support.fake_cuda import FakeLayer

layer = FakeLayer()

def load_on_fake(value):
    model = load(value)
    model.take_apart = lambda: open_pipeline(model, model._handler, layer)
    return model

door, theirs = socket.socketpair()
counter = memoryview(bytearray(8)).cast("Q")
door.settimeout(30)
codes = []
worker = threading.Thread(
    target=lambda: codes.append(serve(theirs, counter, load_on_fake)), daemon=True
)
worker.start()
door.sendall(encode_json(Kind.LOAD, json.loads(sys.argv[1])))
requests = [Request(f"r{n}", (), [Part("body", "application/json", b"[%d]" % n)]) for n in range(9)]
packed = [pack_request(number, request) for number, request in enumerate(requests)]
reader, told, answers = FrameReader(), {}, []
while len(answers) < len(requests):
    for frame in receive(door, reader):
        if frame.kind is Kind.REPLIES:
            for batch in decode_replies(frame.payload):
                answers += [json.loads(bytes(response.body)) for response in batch.responses]
        elif frame.kind is Kind.LOADED:
            told = decode_json(frame.payload)
            door.sendall(b"".join(encode_requests(packed)) + encode_frame(Kind.STOP))
        elif frame.kind is Kind.FAILED:
            sys.exit(f"{frame.kind.name} {bytes(frame.payload)}")
worker.join()
print(json.dumps([told["batches"], answers, codes, counter[0], len(layer.list_asked("upload"))]))
"""


def test_a_worker_tells_the_door_how_many_batches_it_may_have_begun(
    make_model: MakeModel, run_python: RunPython
) -> None:
    options = make_model({"handler.py": FACTORY.replace("99", "-1")}, batch_size=2)
    value = {**asdict(options), "mode": "plain", "check_examples": False, "config_yaml": ""}
    batches, answers, codes, counter, uploads = run_python(WORKER, json.dumps(value))
    assert batches == 3
    assert answers == [[2 * number] for number in range(9)]
    assert (codes, counter) == ([0], 9)
    assert uploads >= 1


def test_stop_lets_everything_be_answered(open_model: Open) -> None:
    model, stages, _ = open_model(FACTORY, batch_size=2)
    with Door(model, stages, batch_size=2) as door:
        door.send(*(body(number) for number in range(20, 29)))
        door.stop()
        assert len(door.read_to_end()) == 9
    assert door.failure is None
    assert door.counter[0] == 9


def test_what_is_no_prediction_has_the_worker_to_itself(open_model: Open, ask: Ask) -> None:
    model, stages, _ = open_model(HANDLER)
    with Door(model, stages) as door:
        door.send(body(1), body(2))
        door.send(b"", describe=True)
        door.send(body(5))
        door.send(body(6), explain=True)
        door.send(body(7))
        answers = say(door.read(6))
    assert answers == [["r0", 2], ["r1", 4], None, ["r3", 10], 501, ["r5", 14]]
    assert door.counter[0] == 6


def test_inputs_that_do_not_fit_together_are_run_one_by_one(open_model: Open, ask: Ask) -> None:
    model, stages, _ = open_model(FACTORY, batch_size=3)
    learn(model, ask)
    with Door(model, stages, batch_size=3) as door:
        door.send(body(1), body(2, 2), body(5))
        assert say(door.read(3)) == [[2], [4, 4], [10]]


def test_outputs_without_parts_are_run_one_by_one(open_model: Open) -> None:
    source = FACTORY.replace("return x * 2", "return x.sum(0, keepdim=True) * 2")
    model, stages, _ = open_model(source, batch_size=2)
    with Door(model, stages, batch_size=2) as door:
        door.send(*(body(number) for number in (1, 2, 5, 6)))
        assert say(door.read(4)) == [[2], [4], [10], [12]]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=12))
def test_slots_are_never_used_twice_at_a_time(
    open_model: Open, ask: Ask, sizes: list[tuple[int, int]]
) -> None:
    """Batches of all lengths and widths, begun as soon as there is a slot, and ended late."""
    sys.modules.pop("handler", None)
    model, stages, layer = open_model(FACTORY, batch_size=5)
    learn(model, ask)
    under_way: list[Any] = []
    answers: list[Any] = []

    def finish() -> None:
        answers.append(say(stages.finish(under_way[0])))
        stages.end(under_way.pop(0))

    for number, (count, width) in enumerate(sizes):
        if len(under_way) == stages.batches:
            finish()
        passage = stages.begin([ask(body(*[number + 10.0] * width)) for _ in range(count)])
        stages.prepare(passage)
        stages.compute(passage)
        under_way.append(passage)
    while under_way:
        finish()
    assert answers == [
        [[2 * (number + 10.0)] * width] * count for number, (count, width) in enumerate(sizes)
    ]
    assert layer.flaws == []


def test_threads_decode_the_samples_of_one_batch(open_model: Open, ask: Ask) -> None:
    model, stages, _ = open_model(FACTORY, batch_size=2, config={"cuda": {"decodeThreads": 2}})
    learn(model, ask)
    handler = sys.modules["handler"]
    handler.gates["pre 1"] = threading.Event()
    passage = stages.begin([ask(body(1)), ask(body(2))])
    thread = threading.Thread(target=stages.prepare, args=(passage,))
    thread.start()
    while "pre 2" not in handler.log:
        assert thread.is_alive()
    handler.gates["pre 1"].set()
    thread.join(30)
    stages.compute(passage)
    assert say(stages.finish(passage)) == [[2], [4]]


def test_what_threads_ask_of_the_device_comes_before_the_copy(open_model: Open, ask: Ask) -> None:
    """A preprocess function may compute on the device: samples are collated on another stream."""
    model, stages, layer = open_model(FACTORY, batch_size=2, config={"cuda": {"decodeThreads": 2}})
    learn(model, ask)
    asked = []

    class Gate:
        def wait(self, _: float) -> bool:
            asked.append((layer.current().name, torch.is_grad_enabled()))
            return True

    handler = sys.modules["handler"]
    handler.gates.update({"pre 1": Gate(), "pre 2": Gate()})
    passage = stages.begin([ask(body(1)), ask(body(2))])
    stages.prepare(passage)
    (upload,) = layer.list_asked("upload")
    assert asked == [(upload.stream, False)] * 2
    stages.compute(passage)
    assert say(stages.finish(passage)) == [[2], [4]]


def test_what_a_model_keeps_of_its_input_is_not_used_again_too_soon(
    open_model: Open, ask: Ask
) -> None:
    """It lets go of that in the next batch, when the device may be at the one before still."""
    model, stages, layer = open_model(FACTORY)
    learn(model, ask)
    passage = stages.begin([ask(body(1))])
    stages.prepare(passage)
    stages.compute(passage)
    assert ("keep", "default") in layer.list_asked("keep")
    assert say(stages.finish(passage)) == [[2]]


def test_threads_prepare_several_batches_of_a_handler(open_model: Open) -> None:
    _, stages, _ = open_model(HANDLER, config={"cuda": {"decodeThreads": 3}})
    assert (stages.threads, stages.batches) == (3, 5)
    _, stages, _ = open_model(HANDLER)
    assert (stages.threads, stages.batches) == (1, 3)


def test_the_cpu_has_the_plain_loop(
    make_model: MakeModel, load_model: Load, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(make_model({"handler.py": FACTORY}, config={"cuda": {"pipeline": True}}))
    assert choose_loop("plain", model) is Loop
    assert caplog.messages == ["cuda.pipeline: ignored: there is no GPU here"]


def test_a_function_has_the_plain_loop_and_hears_why(
    make_model: MakeModel, load_model: Load, caplog: pytest.LogCaptureFixture
) -> None:
    source = "def handle(data, context):\n    return data"
    model = load_model(make_model({"handler.py": source}, config={"cuda": {"pipeline": True}}))
    assert choose_loop("plain", model) is Loop
    (line,) = caplog.messages
    assert "it is neither BaseHandler's nor handler_factory's" in line


def test_a_handler_that_minds_other_threads_is_served_without_them(
    open_model: Open, caplog: pytest.LogCaptureFixture
) -> None:
    source = HANDLER.replace(
        "        rows =", "        assert threading.get_ident() == HOME\n        rows ="
    ).replace("import torch\n", "import threading, torch\nHOME = 0\n", 1)
    model, stages, _ = open_model(source)
    with Door(model, stages) as door:
        vars(sys.modules["handler"])["HOME"] = door.thread.ident
        stages._home = door.thread.ident
        door.send(*(body(number) for number in range(12)))
        answers = say(door.read(12))
    assert answers == [[f"r{number}", 2.0 * number] for number in range(12)]
    lines = [message for message in caplog.messages if "overlap" in message]
    assert len(lines) == 1
    assert "the first 3 failed where they do, and only there: AssertionError" in lines[0]


def test_what_was_proven_to_overlap_fails_but_once(open_model: Open, ask: Ask) -> None:
    model, stages, _ = open_model(FACTORY)
    learn(model, ask)
    with Door(model, stages) as door:
        door.send(*(body(number) for number in (10, 11, 12, 13)))
        door.read(4)
        door.send(*(body(number) for number in (10, 500)))
        assert say(door.read(6))[4:] == [[20], 503]
    assert sys.modules["handler"].log.count("pre 500") == 1


def test_gradients_are_as_the_handler_left_them(open_model: Open) -> None:
    source = HANDLER.replace(
        "        ids =", "        data = self.head(data.float()).numpy()\n        ids ="
    )
    source = source.replace(
        "lambda x: x * 2",
        "lambda x: x * 2\n        self.head = torch.nn.Identity()"
        "\n        self.scale = torch.nn.Parameter(torch.ones(1))",
    ).replace("self.head(", "(self.scale * ")
    with torch.no_grad():
        model, stages, _ = open_model(source)
    with Door(model, stages) as door:
        door.send(body(1), body(2))
        assert say(door.read(2)) == [["r0", 2], ["r1", 4]]


@pytest.mark.parametrize(
    ("source", "config", "said"),
    [
        (HANDLER.replace("        ids =", "        self.last = data\n        ids ="), {},
         "`postprocess` changes `self.last`"),
        (HANDLER + "    def inference(self, data):\n        return data\n", {},
         "it has an `inference` of its own"),
        (HANDLER + "    def handle(self, data, context):\n        return data\n", {},
         "it has a `handle` of its own"),
        (HANDLER, {"handler": {"profile": True}}, "its steps are being measured"),
    ],
)  # fmt: skip
def test_a_handler_that_may_mind_is_served_as_before(
    open_model: Open, caplog: pytest.LogCaptureFixture, source: str, config: Any, said: str
) -> None:
    caplog.set_level(logging.INFO, "hatch_mar.model")
    _, stages, _ = open_model(source, config=config)
    assert stages is None
    (line,) = [message for message in caplog.messages if "overlap" in message]
    assert said in line


def test_functions_that_may_mind_are_served_as_before(
    open_model: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hatch_mar.model")
    source = FACTORY.replace("    return output\n", "    log.append(output)\n    return output\n")
    assert open_model(source)[1] is None
    assert "the handler may mind: `postprocess_function` changes `log`" in caplog.text


def test_the_author_has_the_last_word(open_model: Open) -> None:
    stateful = HANDLER.replace("        ids =", "        self.last = data\n        ids =")
    assert open_model(stateful, config={"cuda": {"pipeline": True}})[1] is not None
    assert open_model(HANDLER, config={"cuda": {"pipeline": False}})[1] is None


def test_an_image_is_decoded_on_the_host_and_copied_once(open_model: Open, ask: Ask) -> None:
    source = """
import torch
from hatch_mar.model.handlers.image_classifier import ImageClassifier

class Handler(ImageClassifier):
    def initialize(self, context):
        self.context = context
        self.device = torch.device("cpu")
        self.model = lambda x: x.flatten(1)[:, :7]
"""
    model, stages, layer = open_model(source, batch_size=3)
    requests = [ask(json.dumps([[list(range(start, start + 9))]]).encode()) for start in (0, 4, 7)]
    expected = [bytes(one.body) for one in model.predict(requests)]
    passage = stages.begin(requests)
    stages.prepare(passage)
    stages.compute(passage)
    assert [bytes(one.body) for one in stages.finish(passage)] == expected
    stages.end(passage)
    assert [asked.stream for asked in layer.list_asked("upload")] == ["stream1"]


def test_a_stream_of_pieces_reaches_its_client(open_model: Open) -> None:
    source = HANDLER.replace(
        "        ids =",
        "        from ts.handler_utils.utils import send_intermediate_predict_response as send\n"
        "        send(['piece'] * len(data), self.context.request_ids, 'ok', 200, self.context)\n"
        "        ids =",
    )
    model, stages, _ = open_model(source)
    with Door(model, stages) as door:
        door.send(body(1), body(2))
        answers = say(door.read(2))
    assert answers == [["r0", 2], ["r1", 4]]
    assert [(number, bytes(piece.body)) for number, piece in door.pieces] == [
        (0, b"piece"), (1, b"piece"),
    ]  # fmt: skip


NETWORK = """
import torch
from hatch_mar import handler_factory

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(10)
        )
        self.layers(torch.zeros(1, 3, 16, 16))

    def forward(self, x):
        return self.layers(x)

def preprocess(sample):
    generator = torch.Generator().manual_seed(int(sample))
    return torch.randn(3, 16, 16, generator=generator)

handle = handler_factory(Net, preprocess)
"""


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("config", [{}, {"cuda": {"graphs": True, "decodeThreads": 2}}])
def test_answers_of_a_gpu_are_those_of_the_plain_loop(
    make_model: MakeModel, load_model: Load, ask: Ask, config: Any
) -> None:
    model = load_model(make_model({"handler.py": NETWORK}, batch_size=8, gpu_id=0, config=config))
    stages = model.take_apart()
    assert stages is not None
    bodies = [json.dumps(number).encode() for number in range(200)]
    expected: list[Any] = []
    for start in range(0, len(bodies), 8):
        expected += say(model.predict([ask(one) for one in bodies[start : start + 8]]))
    with Door(model, stages, batch_size=8) as door:
        door.send(*bodies)
        answers = say(door.read(200))
    torch.testing.assert_close(torch.tensor(answers), torch.tensor(expected))


@pytest.mark.gpu
@needs_gpu
def test_a_handler_on_a_gpu_finds_its_output_there(make_model: MakeModel, load_model: Load) -> None:
    source = HANDLER.replace('torch.device("cpu")', 'torch.device("cuda", 0)').replace(
        "        ids =", "        assert data.is_cuda\n        ids ="
    )
    options = make_model({"handler.py": source}, batch_size=4, gpu_id=0)
    model = load_model(options)
    stages = model.take_apart()
    assert stages is not None
    with Door(model, stages, batch_size=4) as door:
        door.send(*(body(number) for number in range(100)))
        answers = say(door.read(100))
    assert answers == [[f"r{number}", 2 * number] for number in range(100)]


@pytest.mark.gpu
@needs_gpu
def test_memory_that_runs_out_on_a_gpu_fails_the_one_that_needs_it(
    make_model: MakeModel, load_model: Load
) -> None:
    source = HANDLER.replace('torch.device("cpu")', 'torch.device("cuda", 0)').replace(
        "lambda x: x * 2",
        "lambda x: x * 2 + (torch.ones(1 << 45, device='cuda')[0] if (x == 7).any() else 0)",
    )
    model = load_model(make_model({"handler.py": source}, batch_size=4, gpu_id=0))
    stages = model.take_apart()
    assert stages is not None
    with Door(model, stages, batch_size=4) as door:
        door.send(*(body(number) for number in range(20)))
        answers = say(door.read(20))
    assert answers == [507 if number == 7 else [f"r{number}", 2 * number] for number in range(20)]


@pytest.mark.gpu
@needs_gpu
def test_what_the_gpu_reads_is_not_written_to(make_model: MakeModel, load_model: Load) -> None:
    """Large inputs, a slow model, and a host that is far ahead: too early a copy would show."""
    source = (
        HANDLER.replace('torch.device("cpu")', 'torch.device("cuda", 0)')
        .replace(
            "lambda x: x * 2",
            "lambda x: (torch.cuda._sleep(5_000_000), x * 2)[1]",
        )
        .replace("torch.tensor(rows)", "torch.tensor(rows).expand(-1, 1 << 18).contiguous()")
        .replace("data.tolist()", "data[:, ::1 << 16].tolist()")
    )
    model = load_model(make_model({"handler.py": source}, batch_size=4, gpu_id=0))
    stages = model.take_apart()
    assert stages is not None
    with Door(model, stages, batch_size=4) as door:
        door.send(*(body(number) for number in range(120)))
        answers = say(door.read(120))
    assert answers == [[f"r{number}", *[2 * number] * 4] for number in range(120)]
