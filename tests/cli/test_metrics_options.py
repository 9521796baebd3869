"""How what is said of metrics, in flags and in config.properties, reaches the runner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from hatch_mar.cli.options import ServeOptions
from hatch_mar.cli.serve import command
from hatch_mar.cli.torchserve.configured import _options
from hatch_mar.cli.torchserve.properties import read_properties
from hatch_mar.errors import ProblemsError
from hatch_mar.serve.metrics.config import DEFAULT

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.errors import Problem

GOOD = "model_metrics: {counter: [{name: Cats, unit: n, dimensions: []}]}"
BAD = "model_metrics: {counter: [{name: Cats}], summary: []}"


def configure(tmp_path: Path, text: str) -> tuple[ServeOptions, list[Problem]]:
    path = tmp_path / "config.properties"
    path.write_text(text)
    properties = read_properties(path, environ={}, overrides={}).properties
    problems: list[Problem] = []
    return _options(properties, {}, problems), problems


def test_by_default_everything_is_published() -> None:
    options = ServeOptions()
    assert (options.metrics_mode, options.metrics_config) == ("prometheus", None)
    assert options.detects_metrics


def test_a_file_says_what_is_published_of_handlers() -> None:
    assert not ServeOptions(metrics_config=DEFAULT).detects_metrics
    assert ServeOptions(metrics_config=DEFAULT, metrics_auto_detect=True).detects_metrics
    assert not ServeOptions(metrics_auto_detect=False).detects_metrics


def test_every_key_reaches_the_options(tmp_path: Path) -> None:
    (tmp_path / "metrics.yaml").write_text(GOOD)
    options, problems = configure(
        tmp_path,
        f"metrics_mode=LEGACY\nmetrics_config={tmp_path}/metrics.yaml\n"
        "model_metrics_auto_detect=true\ndisable_system_metrics=true\nmetric_time_interval=5\n",
    )
    assert problems == []
    assert options.metrics_mode == "legacy"
    assert options.metrics_config is not None
    assert list(options.metrics_config.backend) == ["Cats"]
    assert options.detects_metrics
    assert not options.system_metrics
    assert options.metrics_interval == 5


def test_nothing_said(tmp_path: Path) -> None:
    options, _ = configure(tmp_path, "")
    assert options.metrics_mode == "prometheus"
    assert options.detects_metrics
    assert options.system_metrics


def test_undeclared_ones_can_be_dropped(tmp_path: Path) -> None:
    options, _ = configure(tmp_path, "model_metrics_auto_detect=false\n")
    assert not options.detects_metrics


def test_what_is_wrong_in_the_file_is_among_the_problems(tmp_path: Path) -> None:
    (tmp_path / "metrics.yaml").write_text(BAD)
    _, problems = configure(tmp_path, f"metrics_config={tmp_path}/metrics.yaml\n")
    assert [one.key for one in problems] == [
        "model_metrics.counter[0].unit",
        "model_metrics.counter[0].dimensions",
        "model_metrics.summary",
    ]


def test_a_file_that_is_not_there_is_one(tmp_path: Path) -> None:
    ((problem),) = configure(tmp_path, "metrics_config=none.yaml\n")[1]
    assert (problem.key, problem.message) == (
        "metrics_config",
        "none.yaml: cannot be read: No such file or directory",
    )


def test_the_flag_reads_the_file_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "metrics.yaml").write_text(BAD)
    result = CliRunner().invoke(command, ["--metrics-config", str(tmp_path / "metrics.yaml"), "m"])
    assert isinstance(result.exception, ProblemsError)
    assert len(result.exception.problems) == 3


@pytest.mark.parametrize("flag", ["--metrics-mode", "--log-format", "--log-level"])
def test_a_choice_that_there_is_not(flag: str) -> None:
    result = CliRunner().invoke(command, [flag, "loud", "m"])
    assert result.exit_code == 2
    assert "'loud' is not one of" in result.output
