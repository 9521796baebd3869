"""The lines of TorchServe's modes `log` and `legacy`, as its Java server writes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from hatch_mar.model.protocol import Request
from hatch_mar.serve.batching.jobs import Job
from hatch_mar.serve.metrics.config import MetricsConfig, MetricSpec
from hatch_mar.serve.metrics.log import EventMetrics, make_metrics
from hatch_mar.serve.metrics.store import LEGACY, Family, Metrics, gauge
from hatch_mar.serve.packing import pack_request

if TYPE_CHECKING:
    from hatch_mar.serve.metrics.store import Mode

Lines = list[tuple[str, str]]


class Nobody:
    def cancel(self, job: Job) -> None: ...

    def hold(self, job: Job) -> None: ...

    def release(self, job: Job) -> None: ...


@pytest.fixture
def lines() -> Lines:
    return []


def make(mode: Mode, lines: Lines, *, auto_detect: bool = True) -> EventMetrics:
    def write(log: str, line: str) -> None:
        text, _, stamp = line.rpartition(",timestamp:")
        assert re.fullmatch(r"\d{10}", stamp), line
        lines.append((log, text))

    metrics = make_metrics(mode=mode, hostname="h", auto_detect=auto_detect, write=write)
    assert isinstance(metrics, EventMetrics)
    return metrics


@pytest.fixture
def metrics(lines: Lines) -> EventMetrics:
    return make("log", lines)


def measured(**changes: object) -> dict[str, object]:
    return {
        "name": "Cats",
        "value": 2,
        "unit": "Count",
        "type": "counter",
        "dimensions": [["Kind", "good"], ["Level", "Model"]],
        "requestId": "one,two",
        **changes,
    }


def job(ident: str) -> Job:
    packed = pack_request(1, Request(ident, [], [], None))
    return Job(packed, print, Nobody(), Metrics(hostname="h").tally("m", None), 1, 0.0)


def test_nothing_is_told_before_anything_happens(metrics: Metrics, lines: Lines) -> None:
    metrics.tally("m", None)
    assert lines == []
    assert metrics.expose() == ""


def test_responses_are_told_one_by_one(metrics: Metrics, lines: Lines) -> None:
    for status in (200, 404, 302):
        metrics.count_response(status)
    assert lines == [
        ("TS_METRICS", "Requests2XX.Count:1.0|#Level:Host|#hostname:h"),
        ("TS_METRICS", "Requests4XX.Count:1.0|#Level:Host|#hostname:h"),
    ]


def test_sums_are_told_as_increments(metrics: Metrics, lines: Lines) -> None:
    tally = metrics.tally("m", None)
    assert metrics.tally("m", None) is tally
    tally.requests += 1
    tally.requests += 1
    tally.inference += 0.25
    tally.inference += 0.5
    tally.queue += 0.001
    versioned = metrics.tally("m", "2.0")
    versioned.requests += 1
    labels = "|#model_name:m,model_version:default|#hostname:h"
    assert [line for _, line in lines] == [
        f"ts_inference_requests_total.Count:1.0{labels}",
        f"ts_inference_requests_total.Count:1.0{labels}",
        f"ts_inference_latency_microseconds.Microseconds:250000.0{labels}",
        f"ts_inference_latency_microseconds.Microseconds:500000.0{labels}",
        f"ts_queue_latency_microseconds.Microseconds:1000.0{labels}",
        "ts_inference_requests_total.Count:1.0|#model_name:m,model_version:2.0|#hostname:h",
    ]


def test_readings(metrics: Metrics, lines: Lines) -> None:
    metrics.queue_time = 0.0012
    metrics.worker_thread_time = 0.003
    metrics.set_load_time("W-9000-m_1.0", 1.5)
    assert [line for _, line in lines] == [
        "QueueTime.Milliseconds:1.2|#Level:Host|#hostname:h",
        "WorkerThreadTime.Milliseconds:3.0|#Level:Host|#hostname:h",
        "WorkerLoadTime.Milliseconds:1500.0|#WorkerName:W-9000-m_1.0,Level:Host|#hostname:h",
    ]


def test_a_prediction_names_its_requests(metrics: Metrics, lines: Lines) -> None:
    metrics.note_prediction("m", 0.00123, [job("one"), job("two")])
    assert lines == [
        (
            "MODEL_METRICS",
            "PredictionTime.ms:1.23|#ModelName:m,Level:Model|#hostname:h,requestID:one,two",
        )
    ]


def test_what_handlers_measure(metrics: Metrics, lines: Lines) -> None:
    metrics.record(measured())
    metrics.record(measured(value=1e-7, unit="x", requestId="", dimensions=[]))
    assert lines == [
        (
            "MODEL_METRICS",
            "Cats.Count:2.0|#Kind:good,Level:Model|#hostname:h,requestID:one,two",
        ),
        ("MODEL_METRICS", "Cats.x:1.0E-7|#|#hostname:h,requestID:null"),
    ]


def test_a_name_is_told_from_its_unit(
    metrics: Metrics, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        metrics.record(measured(name="Cats.Dogs"))
    metrics.record(measured(name="Cats and dogs"))
    assert [line.partition(":")[0] for _, line in lines] == ["Cats and dogs.Count"]
    assert len(caplog.records) == 1


def test_a_line_stays_one(metrics: Metrics, lines: Lines) -> None:
    metrics.record(measured(dimensions=[["Kind", "two\nlines"]]))
    assert "Kind:two lines" in lines[0][1]


def test_undeclared_ones_may_be_left_out(lines: Lines) -> None:
    make("log", lines, auto_detect=False).record(measured())
    assert lines == []


def test_the_machine_is_told_when_asked(metrics: EventMetrics, lines: Lines) -> None:
    metrics.add_collector(lambda: [gauge("DiskUsage", [(metrics.host_labels(), 1.5)])])
    metrics.add_collector(lambda: [gauge("Unknown", [(metrics.host_labels(), 1.5)])])
    assert lines == []
    metrics.log_machine()
    assert lines == [("TS_METRICS", "DiskUsage.Gigabytes:1.5|#Level:Host|#hostname:h")]


def test_what_is_our_own_is_told_without_being_declared(
    metrics: EventMetrics, lines: Lines
) -> None:
    labels = (("model_name", "m"), ("hostname", "h"))
    metrics.add_collector(
        lambda: [
            Family("hatch_mar_out_of_memory_total", "counter", "", [("", labels, 2.0)]),
            Family("hatch_mar_gpu_memory_peak_megabytes", "gauge", "", [("", labels, 300.0)]),
        ]
    )
    metrics.log_machine()
    assert [line for _, line in lines] == [
        "hatch_mar_out_of_memory_total.Count:2.0|#model_name:m|#hostname:h",
        "hatch_mar_gpu_memory_peak_megabytes.Megabytes:300.0|#model_name:m|#hostname:h",
    ]


def test_legacy_publishes_three_and_logs_the_others(lines: Lines) -> None:
    metrics = make("legacy", lines)
    metrics.tally("m", None).requests += 1
    metrics.count_response(200)
    metrics.record(measured())
    published = re.findall(r"# TYPE (\w+) counter", metrics.expose())
    assert published == [*LEGACY]
    assert [log for log, _ in lines] == ["TS_METRICS", "MODEL_METRICS"]


def test_without_a_place_to_write_loggers_get_the_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    make_metrics(mode="log", hostname="h").count_response(200)
    assert [record.name for record in caplog.records] == ["TS_METRICS"]


def test_what_the_operator_has_not_declared_is_not_told(lines: Lines) -> None:
    config = MetricsConfig(
        frontend={
            "Requests2XX": MetricSpec(
                name="Requests2XX", kind="counter", unit="n", dimensions=("A", "B")
            )
        }
    )

    def write(log: str, line: str) -> None:
        lines.append((log, line.partition(",timestamp")[0]))

    metrics = make_metrics(mode="log", config=config, hostname="h", write=write)
    metrics.queue_time = 1
    metrics.note_prediction("m", 1, [])
    metrics.count_response(200)
    assert lines == [("TS_METRICS", "Requests2XX.n:1.0|#A:Host|#hostname:h")]
