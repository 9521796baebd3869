"""Paths that predict."""

from __future__ import annotations

import pytest

from hatch_mar.api.targets import Target, find_hot_target, find_target


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/predictions/m", Target(model="m")),
        ("/predictions/m/", Target(model="m")),
        ("/predictions/m/1.0", Target(model="m", version="1.0")),
        ("/predictions/m/1.0/a/b/c", Target(model="m", version="1.0", url_path="a/b/c")),
        ("/explanations/m/2", Target(model="m", version="2", explain=True)),
        ("/v1/models/m:predict", Target(model="m")),
        ("/v1/models/m:explain", Target(model="m", explain=True)),
        ("/v2/models/m/infer", Target(model="m")),
        ("/v2/models/m/explain", Target(model="m", explain=True)),
        ("/models/m/invoke", Target(model="m", reads_query=True)),
        ("/invocations", Target(model=None, reads_query=True)),
        ("/m/predict", Target(model="m")),
        ("/m/1.0/predict", Target(model="m", version="1.0")),
    ],
)
def test_path_leads_to(path: str, target: Target) -> None:
    assert find_target(path) == target


@pytest.mark.parametrize(
    "path", ["/", "/predictions", "/predictions/", "/ping", "/models/m", "/v1/models/m", "/m"]
)
def test_path_predicts_nothing(path: str) -> None:
    assert find_target(path) is None


def test_hot_path_is_decoded_and_its_query_ignored() -> None:
    assert find_hot_target(b"/predictions/a%20b?x=/1") == Target(model="a b")


def test_routes_that_read_the_query_are_not_hot() -> None:
    assert find_hot_target(b"/invocations?model_name=m") is None
    assert find_hot_target(b"/models/m/invoke?a=b") is None
