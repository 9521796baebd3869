"""Which model a path leads to, for every route that predicts.

One table, read by the fast lane and by the ASGI application, so that both agree on every path. As
in TorchServe slashes at the end count for nothing, and empty segments before it count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from hatch_mar.api.rows import read_query
from hatch_mar.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.serve import Part, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request goes."""

    model: str | None
    """None where the path leaves it open: `/invocations`."""
    version: str | None = None
    """None: the default version."""
    url_path: str | None = ""
    """What follows the version, without a leading slash: the handler's `url_path` header. None on
    routes whose handlers are told of none."""
    explain: bool | None = False
    """None on routes whose handlers are not told."""
    reads_query: bool = False
    """Whether the query string's parameters become rows: SageMaker's and the oldest routes."""


_NAME = r"(?P<model>[^/]+)"
_PREDICTIONS = re.compile(
    rf"/(?P<verb>predictions|explanations)/{_NAME}(?:/(?P<version>[^/]*)(?:/(?P<url_path>.*))?)?",
    re.DOTALL,
)
_KSERVE = tuple(
    re.compile(pattern)
    for pattern in (
        r"/v1/models/(?P<model>[^/:]*)[^/]*?:(?P<verb>predict|explain)[^/]*",
        r"/v2/models/(?P<model>[^/:]*)[^/]*/(?P<verb>infer|explain)",
    )
)
_QUERYING = tuple(
    re.compile(pattern)
    for pattern in (
        rf"/models/{_NAME}/invoke",
        r"/invocations",
        rf"/{_NAME}(?:/(?P<version>[^/]*))?/predict",
    )
)
_EXPLAINING = frozenset({"explanations", "explain"})


def find_target(path: str) -> Target | None:
    """Return the target of a decoded `path` without its query; None if it predicts nothing.

    Not for `OPTIONS`, which describes a path instead of taking it.
    """
    path = path.rstrip("/")
    if found := _PREDICTIONS.fullmatch(path):
        return Target(
            model=found["model"],
            version=found["version"],
            url_path=found["url_path"] or "",
            explain=found["verb"] in _EXPLAINING,
        )
    for pattern in _KSERVE:
        if found := pattern.fullmatch(path):
            explain = found["verb"] in _EXPLAINING
            return Target(model=found["model"], url_path=None, explain=explain)
    for pattern in _QUERYING:
        if found := pattern.fullmatch(path):
            groups = found.groupdict()
            return Target(
                model=groups.get("model"),
                version=groups.get("version"),
                url_path=None,
                explain=None,
                reads_query=True,
            )
    return None


def find_target_of(url: bytes) -> Target | None:
    """Return the target of a raw request `url`, if it predicts."""
    return find_target(unquote(url.partition(b"?")[0].decode("latin-1")))


def merge_query(query: bytes, parts: Sequence[Part]) -> list[Part]:
    """Return the parameters of a query and the parts of a body, the last one of a repeated name."""
    return list({part.name: part for part in (*read_query(query), *parts)}.values())


def choose_model(service: Service, query: bytes, parts: Sequence[Part]) -> str:
    """Return the model of a request whose path names none, as SageMaker's do.

    Raises:
        BadRequestError: it is named nowhere, and there is more than one.
    """
    named = next((part for part in read_query(query) if part.name == "model_name"), None)
    if named is not None and named.data:
        return bytes(named.data).decode(errors="replace")
    sole = service.sole_startup_model()
    if sole is not None:
        return sole
    for part in parts:
        if part.name == "model_name":
            return bytes(part.data).decode(errors="replace")
    raise BadRequestError("Parameter model_name is required.")
