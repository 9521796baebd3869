"""Which model a path leads to, for every route that predicts.

One table, read by the fast lane and by the ASGI application, so that both agree on every path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

_HOT = (b"/predictions/", b"/explanations/", b"/v1/models/", b"/v2/models/")
"""How the paths begin that predict and leave the query alone; what else predicts is rare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request goes."""

    model: str | None
    """None where the path leaves it open: `/invocations`."""
    version: str | None = None
    """None: the default version."""
    url_path: str = ""
    """What follows the version, without a leading slash: the handler's `url_path` header."""
    explain: bool = False
    reads_query: bool = False
    """Whether the query string's parameters become rows (SageMaker's routes)."""


_NAME = r"(?P<model>[^/]+)"
_PATTERNS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rf"/(?P<verb>predictions|explanations)/{_NAME}(?:/(?P<version>[^/]*)(?:/(?P<url_path>.*))?)?",
        rf"/v1/models/{_NAME}:(?P<verb>predict|explain)",
        rf"/v2/models/{_NAME}/(?P<verb>infer|explain)",
        rf"/models/{_NAME}/(?P<verb>invoke)",
        r"/(?P<verb>invocations)",
        rf"/{_NAME}(?:/(?P<version>[^/]+))?/(?P<verb>predict)",
    )
)
_EXPLAINING = frozenset({"explanations", "explain"})
_QUERYING = frozenset({"invoke", "invocations"})


def find_target(path: str) -> Target | None:
    """Return the target of a decoded `path` without its query; None if it predicts nothing.

    Not for `OPTIONS`, which describes a path instead of taking it.
    """
    for pattern in _PATTERNS:
        found = pattern.fullmatch(path)
        if found is not None:
            groups = found.groupdict()
            return Target(
                model=groups.get("model"),
                version=groups.get("version") or None,
                url_path=groups.get("url_path") or "",
                explain=groups["verb"] in _EXPLAINING,
                reads_query=groups["verb"] in _QUERYING,
            )
    return None


def find_hot_target(url: bytes) -> Target | None:
    """Return the target of a raw request `url`, if it is one that the fast lane takes."""
    if not url.startswith(_HOT):
        return None
    return find_target(unquote(url.partition(b"?")[0].decode("latin-1")))
