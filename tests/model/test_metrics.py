"""`context.metrics`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hatch_mar.model.metrics import Dimension, Metrics, MetricTypes


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics("digits")
    metrics.request_ids = {0: "one", 1: "two"}
    return metrics


def only(metrics: Metrics) -> dict[str, Any]:
    (measurement,) = metrics.drain()
    return measurement.as_dict()


def test_a_counter(metrics: Metrics) -> None:
    metrics.add_counter("Hits", 2, 1, [Dimension("Kind", "good")])
    assert only(metrics) == {
        "name": "Hits",
        "value": 2,
        "unit": "Count",
        "type": "counter",
        "dimensions": [["Kind", "good"], ["ModelName", "digits"], ["Level", "Model"]],
        "requestId": "two",
    }


def test_without_an_index_it_is_about_the_whole_batch(metrics: Metrics) -> None:
    metrics.add_counter("Hits", 1)
    assert only(metrics)["requestId"] == "one,two"


@pytest.mark.parametrize(
    ("method", "arguments", "unit", "kind"),
    [
        ("add_time", ("T", 1.5, None, "s"), "Seconds", "gauge"),
        ("add_time", ("T", 1.5), "Milliseconds", "gauge"),
        ("add_size", ("S", 1.5, None, "kB"), "Kilobytes", "gauge"),
        ("add_size", ("S", 1.5), "Megabytes", "gauge"),
        ("add_percent", ("P", 50), "Percent", "gauge"),
        ("add_error", ("E", 1), "unit", "counter"),
        ("add_metric", ("M", 1, "apples"), "apples", "counter"),
    ],
)
def test_each_method_has_its_unit_and_type(
    metrics: Metrics, method: str, arguments: tuple[Any, ...], unit: str, kind: str
) -> None:
    getattr(metrics, method)(*arguments)
    measured = only(metrics)
    assert (measured["unit"], measured["type"]) == (unit, kind)


def test_the_type_can_be_said(metrics: Metrics) -> None:
    metrics.add_metric("M", 1, "ms", metric_type=MetricTypes.HISTOGRAM)
    assert only(metrics)["type"] == "histogram"


def test_numbers_of_other_libraries_are_numbers(metrics: Metrics) -> None:
    numpy = pytest.importorskip("numpy")
    metrics.add_counter("M", numpy.float32(0.5))
    assert json.dumps(only(metrics))


def test_the_type_can_be_said_by_its_name(metrics: Metrics) -> None:
    metrics.add_metric("M", 1, "ms", metric_type="gauge")  # type: ignore[arg-type]
    assert only(metrics)["type"] == "gauge"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("M", "much", "ms"), "much"),
        (("M", None, "ms"), "None"),
        (("M", 1, "ms", None, None, "no such type"), "no such type"),
        (("M", -1, "count"), "cannot shrink"),
        (("M", float("nan"), "count"), "cannot shrink"),
    ],
)
def test_what_makes_no_sense_is_logged_and_no_prediction_fails(
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
    arguments: tuple[Any, ...],
    said: str,
) -> None:
    metrics.add_metric(*arguments)
    assert metrics.drain() == []
    assert said in caplog.text


def test_errors_are_about_no_request(metrics: Metrics) -> None:
    metrics.add_error("E", 1)
    measured = only(metrics)
    assert measured["dimensions"] == [["Level", "Error"]]
    assert not measured["requestId"]


def test_own_dimensions_take_the_place_of_the_usual_ones(metrics: Metrics) -> None:
    metrics.add_counter("Hits", 1, None, [Dimension("Level", "Own")])
    assert only(metrics)["dimensions"] == [["Level", "Own"], ["ModelName", "digits"]]


@pytest.mark.parametrize("method", ["add_time", "add_size"])
def test_a_wrong_unit_is_refused(metrics: Metrics, method: str) -> None:
    with pytest.raises(ValueError, match="the unit must be one of"):
        getattr(metrics, method)("X", 1, None, "furlong")


def test_dimensions_of_one_call_stay_with_it(metrics: Metrics) -> None:
    dimensions = [Dimension("a", 1)]
    metrics.add_counter("Hits", 1, None, dimensions)
    metrics.add_counter("Hits", 1)
    first, second = metrics.drain()
    assert len(first.dimensions) == 3
    assert len(second.dimensions) == 2
    assert len(dimensions) == 1


def test_draining_takes_everything_once(metrics: Metrics) -> None:
    metrics.add_counter("a", 1)
    metrics.add_counter("b", 1)
    assert [measurement.name for measurement in metrics.drain()] == ["a", "b"]
    assert metrics.drain() == []


def test_a_declared_metric(metrics: Metrics) -> None:
    metric = metrics.add_metric_to_cache("Size", "MB", ["Layer"], MetricTypes.GAUGE)
    metric.add_or_update(3, ["first"], request_id="one")
    assert only(metrics) == {
        "name": "Size",
        "value": 3,
        "unit": "Megabytes",
        "type": "gauge",
        "dimensions": [["Layer", "first"]],
        "requestId": "one",
    }


def test_the_last_declaration_counts(metrics: Metrics) -> None:
    metrics.add_metric_to_cache("Size", "MB", ["Layer"])
    last = metrics.add_metric_to_cache("Size", "MB", ["Block", "Layer"])
    assert metrics.get_metric("Size") is last


def test_what_was_added_once_can_be_got(metrics: Metrics) -> None:
    metrics.add_counter("Hits", 1, None, [Dimension("Kind", "good")])
    metrics.drain()
    metrics.get_metric("Hits").add_or_update(2, ["bad", "digits", "Model"])
    assert only(metrics)["dimensions"][0] == ["Kind", "bad"]


@pytest.mark.parametrize("name", ["HandlerTime", "PredictionTime"])
def test_what_every_model_has_can_be_got(metrics: Metrics, name: str) -> None:
    assert metrics.get_metric(name, MetricTypes.GAUGE).dimension_names == ["ModelName", "Level"]


def test_what_the_operator_declared_can_be_got() -> None:
    declared = {"name": "Hits", "unit": "count", "type": "counter", "dimensions": ["Kind"]}
    metrics = Metrics("digits", [declared])
    metrics.get_metric("Hits").add_or_update(1, ["good"])
    assert only(metrics)["dimensions"] == [["Kind", "good"]]


def test_a_metric_of_another_type_was_not_declared(metrics: Metrics) -> None:
    metrics.add_metric_to_cache("Size", "MB")
    with pytest.raises(KeyError, match="no gauge 'Size'"):
        metrics.get_metric("Size", MetricTypes.GAUGE)


def test_a_value_may_bring_its_own_dimensions(metrics: Metrics) -> None:
    metric = metrics.add_metric_to_cache("Size", "MB", ["Layer"])
    metric.update(3, "one", [Dimension("Block", 2)])
    assert only(metrics)["dimensions"] == [["Block", "2"]]


def test_a_request_that_is_not_in_the_batch_means_all(metrics: Metrics) -> None:
    metrics.add_counter("Hits", 1, 7)
    assert only(metrics)["requestId"] == "one,two"


def test_values_must_match_the_dimensions(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    metric = metrics.add_metric_to_cache("Size", "MB", ["Layer"])
    metric.add_or_update(3, ["a", "b"])
    assert metrics.drain() == []
    assert "'Size': has the dimensions ['Layer']" in caplog.text


def test_a_dimension_reads_as_in_the_logs() -> None:
    assert str(Dimension("Level", "Model")) == "Level:Model"
