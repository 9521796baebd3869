"""`/metrics` over HTTP: who may ask how, and what parsers other than people's own make of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from tests.support.runner import Runner


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics/models"])
def test_any_method_and_what_is_below(server: Runner, method: str, path: str) -> None:
    answer = httpx.request(method, server.metrics_url + path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "Requests2XX{" in answer.text


def test_a_head_without_a_body(server: Runner) -> None:
    answer = httpx.head(f"{server.metrics_url}/metrics")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/metricsx", "/METRICS", "/nothing"])
def test_other_paths(server: Runner, path: str) -> None:
    answer = httpx.get(server.metrics_url + path)
    assert (answer.status_code, answer.json()["type"]) == (404, "ResourceNotFoundException")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("name[]=QueueTime", {"QueueTime"}),
        ("name%5B%5D=QueueTime&name[]=Requests2XX", {"QueueTime", "Requests2XX"}),
        ("name[]=Nothing", set()),
        ("name[]=", set()),
    ],
)
def test_names_select(server: Runner, query: str, names: set[str]) -> None:
    text = httpx.get(f"{server.metrics_url}/metrics?{query}").text
    assert set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) == names


def test_prometheus_reads_it(server: Runner) -> None:
    httpx.post(f"{server.url}/predictions/mirror", content=b"x")
    text = httpx.get(f"{server.metrics_url}/metrics").text
    families = {one.name: one for one in text_string_to_metric_families(text)}
    assert families["PredictionTime"].type == "gauge"
    times = {one.labels["ModelName"]: one.value for one in families["PredictionTime"].samples}
    assert times["mirror"] > 0
    samples = [sample for family in families.values() for sample in family.samples]
    keys = [(sample.name, *sorted(sample.labels.items())) for sample in samples]
    assert len(set(keys)) == len(keys)
