"""Names, labels and text as TorchServe's Java client writes them."""

from __future__ import annotations

import pytest

from hatch_mar.serve.metrics.config import Kind, MetricsConfig, MetricSpec
from hatch_mar.serve.metrics.log import make_metrics
from hatch_mar.serve.metrics.store import Metrics, gauge, write_family


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(hostname="h")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def spec(name: str, kind: Kind, unit: str, *dimensions: str) -> MetricSpec:
    return MetricSpec(name=name, kind=kind, unit=unit, dimensions=dimensions)


def by_name(*specs: MetricSpec) -> dict[str, MetricSpec]:
    return {one.name: one for one in specs}


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
    assert metrics.expose().startswith(
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
        "# HELP CPUUtilization Torchserve prometheus gauge metric with unit: Percent\n"
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
        text = lines(metrics.expose(["Cats_bucket", "Cats_count", "Cats_sum"]))
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

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"name": "my cats"}, "use letters, digits and underscores"),
            ({"name": "QueueTime"}, "the server has one of that name"),
            ({"dimensions": [["my kind", "a"]]}, "'my kind' is no name of a label"),
            ({"dimensions": [["a", "1"], ["a", "2"]]}, "two labels of one name"),
            ({"value": -1}, "a counter cannot grow by -1"),
        ],
    )
    def test_what_prometheus_would_refuse_is_left_out_and_said_once(
        self,
        metrics: Metrics,
        caplog: pytest.LogCaptureFixture,
        changes: dict[str, object],
        said: str,
    ) -> None:
        for _ in range(2):
            metrics.record({**measured(1, "counter"), **changes})
        assert len(caplog.records) == 1
        assert said in caplog.text
        assert not [line for line in lines(metrics.expose()) if "Cats" in line or "cats" in line]

    def test_unasked_for_they_are_dropped(self) -> None:
        metrics = Metrics(hostname="h", auto_detect=False)
        metrics.record(measured(1, "counter"))
        assert "Cats" not in metrics.expose()


def test_the_names_of_a_histogram_are_those_of_its_samples(metrics: Metrics) -> None:
    metrics.record(measured(1, "histogram"))
    assert metrics.expose(["Cats"]) == ""
    assert lines(metrics.expose(["Cats_sum"])) == ['Cats_sum{Hostname="h",} 1.0']


def test_the_time_of_the_last_prediction(metrics: Metrics) -> None:
    for seconds in (0.5, 0.01234567):
        metrics.note_prediction("m", seconds, [])
    assert lines(metrics.expose(["PredictionTime"])) == [
        'PredictionTime{ModelName="m",Level="Model",Hostname="h",} 12.35'
    ]


def test_what_nobody_has_measured_yet_is_listed(metrics: Metrics) -> None:
    assert "# TYPE GPUUtilization gauge\n# HELP" in metrics.expose()


class TestDeclared:
    """As the operator's metrics.yaml says."""

    @pytest.fixture
    def metrics(self) -> Metrics:
        return make_metrics(
            hostname="h",
            auto_detect=False,
            config=MetricsConfig(
                frontend=by_name(
                    spec("Requests2XX", "counter", "answers", "A", "B"),
                    spec("QueueTime", "histogram", "ms", "Level", "Hostname"),
                    spec("NeverSet", "gauge", "ms", "Level"),
                ),
                backend=by_name(
                    spec("Cats", "gauge", "paws", "One", "Hostname"),
                    spec("PredictionTime", "histogram", "ms", "ModelName", "Level", "Hostname"),
                ),
            ),
        )

    def test_only_what_is_declared_is_published(self, metrics: Metrics) -> None:
        metrics.count_response(404)
        text = metrics.expose()
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert names == ["Requests2XX", "QueueTime", "NeverSet", "Cats", "PredictionTime"]

    def test_labels_are_named_by_their_position(self, metrics: Metrics) -> None:
        metrics.record(measured(3, "counter", Kind="good"))
        assert lines(metrics.expose(["Cats"])) == ['Cats{One="good",Hostname="h",} 3.0']
        assert lines(metrics.expose(["Requests2XX"])) == ['Requests2XX{A="Host",B="h",} 0.0']

    def test_unit_and_type_are_the_declared_ones(self, metrics: Metrics) -> None:
        for value in (3, 1):
            metrics.record(measured(value, "counter", Kind="good"))
        assert metrics.expose(["Cats"]) == (
            "# HELP Cats Torchserve prometheus gauge metric with unit: paws\n"
            "# TYPE Cats gauge\n"
            'Cats{One="good",Hostname="h",} 1.0\n'
        )

    def test_other_labels_than_declared_are_left_out(
        self, metrics: Metrics, caplog: pytest.LogCaptureFixture
    ) -> None:
        metrics.record(measured(1, "gauge", a="1", b="2"))
        assert lines(metrics.expose(["Cats"])) == []
        assert "has the dimensions One, Hostname" in caplog.text

    def test_a_reading_of_the_server_can_be_a_histogram(self, metrics: Metrics) -> None:
        metrics.queue_time = 0.002
        metrics.queue_time = 0.004
        assert lines(metrics.expose(["QueueTime_count", "QueueTime_sum"])) == [
            'QueueTime_count{Level="Host",Hostname="h",} 2.0',
            'QueueTime_sum{Level="Host",Hostname="h",} 6.0',
        ]

    def test_so_can_the_time_of_predictions(self, metrics: Metrics) -> None:
        for seconds in (0.25, 0.5):
            metrics.note_prediction("m", seconds, [])
        assert lines(metrics.expose(["PredictionTime_sum"])) == [
            'PredictionTime_sum{ModelName="m",Level="Model",Hostname="h",} 750.0'
        ]


def test_others_may_contribute(metrics: Metrics) -> None:
    metrics.add_collector(lambda: [gauge("DiskUsage", [(metrics.host_labels(), 1)])])
    assert lines(metrics.expose(["DiskUsage"])) == ['DiskUsage{Level="Host",Hostname="h",} 1.0']


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1.0"),
        (0.5, "0.5"),
        (float("nan"), "NaN"),
        (float("inf"), "+Inf"),
        (-float("inf"), "-Inf"),
        (0, "0.0"),
        (0.001, "0.001"),
        (0.00012, "1.2E-4"),
        (1e-7, "1.0E-7"),
        (-9999999, "-9999999.0"),
        (12345678.9, "1.23456789E7"),
        (-1e21, "-1.0E21"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert write_family(gauge("g", [((), value)])).endswith(f"g{{}} {text}\n")


def test_odd_label_values_are_escaped() -> None:
    text = write_family(gauge("g", [((("a", 'x"y\\z\n'),), 1)]))
    assert lines(text) == ['g{a="x\\"y\\\\z\\n",} 1.0']
