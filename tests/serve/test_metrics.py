"""Names, labels and text as TorchServe's Java client writes them."""

from __future__ import annotations

import pytest

from hatch_mar.serve.metrics import Metrics, gauge, write_family


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(hostname="h")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def measured(value: float, kind: str, **labels: str) -> dict[str, object]:
    return {
        "name": "Cats",
        "value": value,
        "unit": "Count",
        "type": kind,
        "dimensions": [list(pair) for pair in labels.items()],
        "requestId": "",
    }


def test_the_whole_text(metrics: Metrics) -> None:
    metrics.tally("m", None).requests += 2
    metrics.tally("m", None).inference += 0.25
    metrics.tally("m", "1.0").requests += 1
    metrics.set_load_time("W-9000-m_1.0", 1.5)
    metrics.queue_time = 0.002
    for status in (200, 204, 404, 503, 100):
        metrics.count_response(status)
    assert metrics.expose() == (
        "# HELP Requests2XX Torchserve prometheus counter metric with unit: Count\n"
        "# TYPE Requests2XX counter\n"
        'Requests2XX{Level="Host",Hostname="h",} 2.0\n'
        "# HELP Requests4XX Torchserve prometheus counter metric with unit: Count\n"
        "# TYPE Requests4XX counter\n"
        'Requests4XX{Level="Host",Hostname="h",} 1.0\n'
        "# HELP Requests5XX Torchserve prometheus counter metric with unit: Count\n"
        "# TYPE Requests5XX counter\n"
        'Requests5XX{Level="Host",Hostname="h",} 1.0\n'
        "# HELP ts_inference_requests_total "
        "Torchserve prometheus counter metric with unit: Count\n"
        "# TYPE ts_inference_requests_total counter\n"
        'ts_inference_requests_total{model_name="m",model_version="default",hostname="h",} 2.0\n'
        'ts_inference_requests_total{model_name="m",model_version="1.0",hostname="h",} 1.0\n'
        "# HELP ts_inference_latency_microseconds "
        "Torchserve prometheus counter metric with unit: Microseconds\n"
        "# TYPE ts_inference_latency_microseconds counter\n"
        'ts_inference_latency_microseconds{model_name="m",model_version="default",hostname="h",}'
        " 250000.0\n"
        'ts_inference_latency_microseconds{model_name="m",model_version="1.0",hostname="h",} 0.0\n'
        "# HELP ts_queue_latency_microseconds "
        "Torchserve prometheus counter metric with unit: Microseconds\n"
        "# TYPE ts_queue_latency_microseconds counter\n"
        'ts_queue_latency_microseconds{model_name="m",model_version="default",hostname="h",} 0.0\n'
        'ts_queue_latency_microseconds{model_name="m",model_version="1.0",hostname="h",} 0.0\n'
        "# HELP QueueTime Torchserve prometheus gauge metric with unit: Milliseconds\n"
        "# TYPE QueueTime gauge\n"
        'QueueTime{Level="Host",Hostname="h",} 2.0\n'
        "# HELP WorkerThreadTime Torchserve prometheus gauge metric with unit: Milliseconds\n"
        "# TYPE WorkerThreadTime gauge\n"
        'WorkerThreadTime{Level="Host",Hostname="h",} 0.0\n'
        "# HELP WorkerLoadTime Torchserve prometheus gauge metric with unit: Milliseconds\n"
        "# TYPE WorkerLoadTime gauge\n"
        'WorkerLoadTime{WorkerName="W-9000-m_1.0",Level="Host",Hostname="h",} 1500.0\n'
    )


def test_only_what_is_asked_for(metrics: Metrics) -> None:
    text = metrics.expose(["QueueTime", "nothing"])
    assert lines(text) == ['QueueTime{Level="Host",Hostname="h",} 0.0']
    assert metrics.expose(["nothing"]) == ""


class TestHandlers:
    def test_counters_add_up(self, metrics: Metrics) -> None:
        for value in (1, 2):
            metrics.record(measured(value, "counter", ModelName="m"))
        assert lines(metrics.expose(["Cats"])) == ['Cats{ModelName="m",Hostname="h",} 3.0']

    def test_gauges_keep_the_last(self, metrics: Metrics) -> None:
        for value in (1, 2):
            metrics.record(measured(value, "gauge", ModelName="m"))
        assert lines(metrics.expose(["Cats"])) == ['Cats{ModelName="m",Hostname="h",} 2.0']

    def test_histograms_count(self, metrics: Metrics) -> None:
        for value in (0.02, 8, 100):
            metrics.record(measured(value, "histogram", Hostname="other"))
        text = lines(metrics.expose(["Cats"]))
        assert text[0] == 'Cats_bucket{Hostname="other",le="0.005",} 0.0'
        assert 'Cats_bucket{Hostname="other",le="0.025",} 1.0' in text
        assert 'Cats_bucket{Hostname="other",le="10.0",} 2.0' in text
        assert text[-3:] == [
            'Cats_bucket{Hostname="other",le="+Inf",} 3.0',
            'Cats_count{Hostname="other",} 3.0',
            'Cats_sum{Hostname="other",} 108.02',
        ]

    def test_labels_tell_apart(self, metrics: Metrics) -> None:
        metrics.record(measured(1, "counter", a="1"))
        metrics.record(measured(1, "counter", a="2"))
        assert len(lines(metrics.expose(["Cats"]))) == 2

    def test_an_unknown_type_is_a_gauge(self, metrics: Metrics) -> None:
        metrics.record(measured(1, "summary"))
        assert "# TYPE Cats gauge" in metrics.expose(["Cats"])


def test_others_may_contribute(metrics: Metrics) -> None:
    metrics.add_collector(lambda: [gauge("Dogs", "Count", [((("a", "b"),), 1)])])
    assert lines(metrics.expose(["Dogs"])) == ['Dogs{a="b",} 1.0']


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1.0"),
        (0.5, "0.5"),
        (float("nan"), "NaN"),
        (float("inf"), "+Inf"),
        (-float("inf"), "-Inf"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert write_family(gauge("g", "u", [((), value)])).endswith(f"g{{}} {text}\n")


def test_odd_label_values_are_escaped() -> None:
    text = write_family(gauge("g", "u", [((("a", 'x"y\\z\n'),), 1)]))
    assert lines(text) == ['g{a="x\\"y\\\\z\\n",} 1.0']
