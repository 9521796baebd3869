"""Paths that predict."""

from __future__ import annotations

import pytest

from hatch_mar.api.targets import Target, find_target, find_target_of


def queried(model: str | None, version: str | None = None) -> Target:
    """Return the target of a route whose query becomes rows, and whose handler is told nothing."""
    return Target(model=model, version=version, url_path=None, explain=None, reads_query=True)


def kserve(*, explain: bool = False) -> Target:
    return Target(model="m", url_path=None, explain=explain)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/predictions/m", Target(model="m")),
        ("/predictions/m/", Target(model="m")),
        ("/predictions/m/1.0", Target(model="m", version="1.0")),
        ("/predictions/m/1.0/a/b/c", Target(model="m", version="1.0", url_path="a/b/c")),
        ("/explanations/m/2", Target(model="m", version="2", explain=True)),
        ("/predictions/m/1.0/a//b/", Target(model="m", version="1.0", url_path="a//b")),
        ("/predictions/m//a", Target(model="m", version="", url_path="a")),
        ("/v1/models/m:predict", kserve()),
        ("/v1/models/m:predicted", kserve()),
        ("/v1/models/m:explain", kserve(explain=True)),
        ("/v2/models/m/infer", kserve()),
        ("/v2/models/m:x/infer", kserve()),
        ("/v2/models/m/explain", kserve(explain=True)),
        ("/models/m/invoke", queried("m")),
        ("/invocations", queried(None)),
        ("/m/predict", queried("m")),
        ("/m/1.0/predict", queried("m", "1.0")),
    ],
)
def test_path_leads_to(path: str, target: Target) -> None:
    assert find_target(path) == target


@pytest.mark.parametrize(
    "path", ["/", "/predictions", "/predictions/", "/ping", "/models/m", "/v1/models/m", "/m"]
)
def test_path_predicts_nothing(path: str) -> None:
    assert find_target(path) is None


def test_a_path_is_decoded_and_its_query_ignored() -> None:
    assert find_target_of(b"/predictions/a%20b?x=/1") == Target(model="a b")
