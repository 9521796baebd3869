"""`metrics.yaml`, as TorchServe's users write it, and what is wrong with it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from hatch_mar.errors import HatchMarError, ProblemsError
from hatch_mar.serve.metrics.config import (
    DEFAULT,
    MetricsConfig,
    list_declared,
    read_metrics_config,
)

if TYPE_CHECKING:
    from pathlib import Path


def read(tmp_path: Path, text: str) -> MetricsConfig:
    path = tmp_path / "metrics.yaml"
    path.write_text(textwrap.dedent(text))
    return read_metrics_config(path)


def problems(tmp_path: Path, text: str) -> list[tuple[str, str]]:
    with pytest.raises(ProblemsError) as caught:
        read(tmp_path, text)
    assert all(one.file.endswith("metrics.yaml") for one in caught.value.problems)
    return [(one.key, one.message) for one in caught.value.problems]


def test_a_file_as_torchserves(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
        dimensions:
          - &model_name "ModelName"
          - &level "Level"
          - &hostname "Hostname"
        ts_metrics:
          counter:
            - name: Requests2XX
              unit: Count
              dimensions: [*level, *hostname]
          gauge:
        model_metrics:
          histogram:
            - name: HandlerTime
              unit: ms
              dimensions: [*model_name, *level]
            - name: Cats
              unit: count
              dimensions: []
        """,
    )
    requests = config.frontend["Requests2XX"]
    assert (requests.kind, requests.unit, requests.dimensions) == (
        "counter",
        "Count",
        ("Level", "Hostname"),
    )
    assert requests.help == "Torchserve prometheus counter metric with unit: Count"
    assert list(config.frontend) == ["Requests2XX"]
    assert config.backend["HandlerTime"].kind == "histogram"
    assert config.backend["HandlerTime"].dimensions == ("ModelName", "Level", "Hostname")
    assert config.backend["Cats"].dimensions == ("Hostname",)


def test_handlers_are_told_what_is_declared_for_them() -> None:
    assert list_declared(DEFAULT) == [
        {"name": name, "unit": "ms", "type": "gauge", "dimensions": ["ModelName", "Level"]}
        for name in ("HandlerTime", "PredictionTime")
    ]


def test_sections_may_be_missing(tmp_path: Path) -> None:
    assert read(tmp_path, "model_metrics: {}") == MetricsConfig()


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("[]", "", "has no `ts_metrics`"),
        ("ts_metric: {}", "ts_metric", "is not known"),
        ("ts_metrics: [a]", "ts_metrics", "must have counter, gauge, histogram"),
        ("ts_metrics: {summary: []}", "ts_metrics.summary", "is no type of metric"),
        ("ts_metrics: {gauge: x}", "ts_metrics.gauge", "must be a list"),
        ("ts_metrics: {gauge: [x]}", "ts_metrics.gauge[0]", "must have name, unit"),
        (
            "model_metrics: {gauge: [{unit: ms, dimensions: []}]}",
            "model_metrics.gauge[0].name",
            "is missing",
        ),
        (
            "model_metrics: {gauge: [{name: A, unit: 1, dimensions: []}]}",
            "model_metrics.gauge[0].unit",
            "1 is no text",
        ),
        (
            "model_metrics: {gauge: [{name: A, unit: ms}]}",
            "model_metrics.gauge[0].dimensions",
            "is missing; [] for none",
        ),
        (
            "model_metrics: {gauge: [{name: A, unit: ms, dimensions: Level}]}",
            "model_metrics.gauge[0].dimensions",
            "'Level' is no list",
        ),
        (
            "model_metrics: {gauge: [{name: A, unit: ms, dimensions: [my level]}]}",
            "model_metrics.gauge[0].dimensions",
            "'my level': use letters",
        ),
        (
            "model_metrics: {gauge: [{name: A, unit: ms, dimensions: [B, B]}]}",
            "model_metrics.gauge[0].dimensions",
            "names one twice",
        ),
        (
            "model_metrics: {gauge: [{name: my metric, unit: ms, dimensions: []}]}",
            "model_metrics.gauge[0].name",
            "'my metric': use letters",
        ),
        (
            "model_metrics: {gauge: [{name: A, unit: ms, dimensions: [], labels: []}]}",
            "model_metrics.gauge[0].labels",
            "is not known",
        ),
    ],
)
def test_one_problem(tmp_path: Path, text: str, key: str, message: str) -> None:
    ((found_key, found),) = problems(tmp_path, text)
    assert found_key == key
    assert message in found


def test_all_problems_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        ts_metrics:
          gauge: [{name: A, unit: ms, dimensions: []}]
          counter: [{unit: Count, dimensions: []}]
        model_metrics:
          counter: [{name: A, unit: ms, dimensions: []}]
          summary: []
        """,
    )
    assert [key for key, _ in found] == [
        "ts_metrics.counter[0].name",
        "model_metrics.counter[0].name",
        "model_metrics.summary",
    ]
    assert "'A' is ts_metrics.gauge[0] already" in found[1][1]


@pytest.mark.parametrize("text", ["a: [", "a: !!python/object:os.system {}", "\x00"])
def test_no_yaml(tmp_path: Path, text: str) -> None:
    with pytest.raises(HatchMarError, match=r"metrics\.yaml: is no YAML"):
        read(tmp_path, text)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(HatchMarError, match="cannot be read: No such file"):
        read_metrics_config(tmp_path / "none.yaml")
