"""How sources of weights are written: what can be said of a URI without opening it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

SCHEMES = ("az", "file", "gs", "hf", "http", "https", "s3")
"""Schemes of the sources that a store here opens; some need an extra."""


def find_flaw(source: str) -> str | None:
    """Return why no store anywhere could open `source`, or None; whether it is there is not asked.

    What schemes other than ours look like is not for us to say.
    """
    try:
        parts = urlsplit(source)
        server = parts.hostname
        parts.port  # noqa: B018 - it is read when it is asked for
    except ValueError as error:
        return f"is not a URL: {str(error)[:1].lower()}{str(error)[1:]}"
    if parts.scheme in {"http", "https"} and not server:
        return "is not a URL: it names no server"
    path = unquote(parts.path) if parts.scheme else source
    if is_local(source) and not (parts.netloc in {"", "localhost"} and Path(path).is_absolute()):
        return "is not an absolute path on this machine"
    return None


def is_local(source: str) -> bool:
    """Say whether `source` is a file of this machine: reading it opens no socket."""
    return re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*:", source) is None


def redact(source: str) -> str:
    """Return `source` without what may be a secret: user, password, query."""
    try:
        parts = urlsplit(source)
    except ValueError:
        return "a source that is not a URL"
    if not parts.scheme:
        return source
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
