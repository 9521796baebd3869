"""The section `cuda` of model-config.yaml: strict in a build, tolerant in an archive."""

from __future__ import annotations

from typing import Any

import pytest

from hatch_mar.archive.modelconfig import check_model_config, read_model_config

FILE = "model-config.yaml"


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        (
            {"precision": "bf16"},
            "cuda.precision",
            "must be 'float32', 'bfloat16' or 'float16', not 'bf16'",
        ),
        ({"channelsLast": 1}, "cuda.channelsLast", "must be a boolean, not 1"),
        ({"buckets": False}, "cuda.buckets", "must be true, or a list of integers, not False"),
        (
            {"buckets": [1, 2.5]},
            "cuda.buckets",
            "must be true, or a list of integers, not [1, 2.5]",
        ),
        ({"buckets": []}, "cuda.buckets", "must not be empty"),
        ({"buckets": [0, 4]}, "cuda.buckets", "must be at least 1, not 0"),
        ({"buckets": [4, 4]}, "cuda.buckets", "names a size twice"),
        ({"graph": True}, "cuda.graph", "unknown key; did you mean 'graphs'?"),
        ({"channels_lst": True}, "cuda.channels_lst", "unknown key; did you mean 'channelsLast'?"),
        (
            {"pipeline": False, "decodeThreads": 2},
            "cuda.decodeThreads",
            "does nothing with pipeline: false; keep one",
        ),
        (None, "cuda", "is empty; remove it"),
        ("bfloat16", "cuda", "must be a mapping, not 'bfloat16'"),
    ],
)
def test_a_build_refuses_what_would_do_nothing(section: Any, key: str, message: str) -> None:
    (problem,) = check_model_config({"cuda": section}, FILE)
    assert (problem.key, problem.message) == (key, message)


def test_an_unknown_key_like_no_other_is_refused_with_those_there_are() -> None:
    (problem,) = check_model_config({"cuda": {"speed": "much"}}, FILE)
    assert problem.message.startswith("unknown key; known are precision, channelsLast,")


def test_graphs_are_made_once() -> None:
    pt2 = {"compile": {"enable": True, "mode": "reduce-overhead"}}
    (problem,) = check_model_config({"pt2": pt2, "cuda": {"graphs": True}}, FILE)
    assert str(problem) == (
        f"{FILE}: cuda.graphs: pt2's mode 'reduce-overhead' makes CUDA graphs itself; keep one"
    )


def test_all_problems_come_at_once() -> None:
    problems = check_model_config({"cuda": {"precision": 16, "graphs": "yes", "fast": True}}, FILE)
    assert [problem.key for problem in problems] == ["cuda.precision", "cuda.graphs", "cuda.fast"]


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"precision": "bfloat16", "channelsLast": True, "buckets": True, "graphs": True},
        {"buckets": [1, 8, 32], "pipeline": True, "decodeThreads": 4},
        {"aotInductor": True, "tensorrt": True},
    ],
)
def test_what_works_is_not_complained_about(section: dict[str, Any]) -> None:
    assert check_model_config({"batchSize": 32, "cuda": section}, FILE) == []
    assert read_model_config({"cuda": section}).warnings == ()


def test_an_archive_is_read_with_warnings() -> None:
    raw = {"cuda": {"precision": "bf16", "graphs": True, "speed": "much"}}
    assert read_model_config(raw).warnings == (
        "cuda.precision: must be 'float32', 'bfloat16' or 'float16', not 'bf16'; ignored",
        "cuda.speed: unknown key; ignored",
    )
    assert read_model_config({"cuda": 3}).warnings == ("cuda: must be a mapping, not 3; ignored",)
