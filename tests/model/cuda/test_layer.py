"""The layer under our CUDA code: the fake one keeps the rules that the real one has."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

import pytest

from hatch_mar.model.cuda.layer import open_layer
from hatch_mar.model.devices import name_device

torch = pytest.importorskip("torch")

from tests.support.fake_cuda import (  # noqa: E402 - it needs torch
    RUBBISH,
    DisciplineError,
    FakeLayer,
    device_assert,
    out_of_memory,
)

if TYPE_CHECKING:
    from hatch_mar.model.cuda.layer import Layer


def test_the_cpu_has_no_layer() -> None:
    assert open_layer(torch.device("cpu")) is None
    assert open_layer(name_device(None)) is None


def test_the_fake_is_a_layer() -> None:
    layer: Layer = FakeLayer()
    assert layer.capability == (9, 0)


def test_a_copy_is_there_once_its_event_was_waited_for() -> None:
    layer = FakeLayer()
    copies, event = layer.stream(), layer.event()
    host = layer.pin(torch.zeros(2))
    host.fill_(1)
    with layer.on(copies):
        device = layer.upload(host)
    assert device.tolist() == [RUBBISH, RUBBISH]
    event.record(copies)
    event.wait(layer.current())
    assert device.tolist() == [1, 1]


def test_host_memory_is_not_written_to_before_it_was_uploaded() -> None:
    layer = FakeLayer()
    event = layer.event()
    host = layer.pin(torch.zeros(2))
    layer.upload(host)
    event.record(layer.current())
    host.fill_(2)
    with pytest.raises(DisciplineError, match="before it was uploaded"):
        event.synchronize()


def test_a_result_is_not_written_to_before_it_was_downloaded() -> None:
    layer = FakeLayer()
    event, result = layer.event(), torch.zeros(2)
    into = layer.pin(result)
    layer.download(result, into)
    event.record(layer.current())
    result.fill_(3)
    with pytest.raises(DisciplineError, match="before it was downloaded"):
        event.synchronize()


def test_an_upload_is_held_until_it_was_used_or_kept_for_who_uses_it() -> None:
    layer = FakeLayer()
    copies, event = layer.stream(), layer.event()
    with layer.on(copies):
        kept, lost = layer.upload(torch.ones(1)), layer.upload(torch.ones(1))
    event.record(copies)
    event.wait(layer.current())
    layer.keep(kept, layer.current())
    del kept
    gc.collect()
    assert layer.flaws == []
    assert layer.memory().allocated == 4
    del lost
    gc.collect()
    assert layer.flaws == ["an upload of stream1 was given up before it was used"]
    assert layer.memory().allocated == 0
    assert layer.memory().peak == 8


def test_an_event_that_marks_nothing_is_not_waited_for() -> None:
    layer = FakeLayer()
    with pytest.raises(DisciplineError, match="never recorded"):
        layer.event().wait(layer.current())


def test_streams_are_current_per_thread() -> None:
    layer = FakeLayer()
    seen = []
    with layer.on(layer.stream()):
        thread = threading.Thread(target=lambda: seen.append(layer.current().name))
        thread.start()
        thread.join()
        seen.append(layer.current().name)
    assert seen == ["default", "stream1"]


def test_the_call_that_is_told_to_fails() -> None:
    layer = FakeLayer(faults={("upload", 2): out_of_memory()})
    layer.upload(torch.ones(1))
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        layer.upload(torch.ones(1))
    layer.upload(torch.ones(1))


def test_after_a_deadly_fault_nothing_works() -> None:
    layer = FakeLayer()
    layer.kill_at("record", 1)
    layer.synchronize()
    with pytest.raises(RuntimeError, match=str(device_assert())):
        layer.event().record(layer.current())
    with pytest.raises(RuntimeError, match=str(device_assert())):
        layer.synchronize()


def test_a_graph_writes_where_its_output_is() -> None:
    layer = FakeLayer()
    into = torch.ones(2)
    graph = layer.capture(lambda: {"y": into * 2})
    output = graph.output["y"]
    into.fill_(5)
    graph.replay()
    assert output.tolist() == [10, 10]


@pytest.mark.gpu
def test_the_real_one_copies_captures_and_counts() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    layer = open_layer(torch.device("cuda", 0))
    assert layer is not None
    layer.reset_peak()
    copies, done = layer.stream(), layer.event()
    host = layer.pin(torch.zeros(1 << 20))
    assert host.is_pinned()
    host.fill_(3)
    with layer.on(copies):
        device = layer.upload(host)
        done.record(layer.current())
    done.wait(layer.current())
    layer.keep(device, layer.current())
    doubled = device * 2
    layer.synchronize()
    graph = layer.capture(lambda: device + 1)
    device.fill_(7)
    graph.replay()
    back = layer.pin(doubled)
    layer.download(doubled, back)
    done.record(layer.current())
    done.synchronize()
    assert done.query()
    assert back.eq(6).all()
    assert graph.output.eq(8).all()
    memory = layer.memory()
    assert 2 * device.nbytes <= memory.allocated <= memory.peak <= memory.total
    assert layer.capability >= (5, 0)
    assert layer.name
