"""How sources of weights are written: what can be said of a URI without opening it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from hatch_mar.weights.address import AddressError, HubAddress, ObjectAddress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SCHEMES = ("az", "file", "gs", "hf", "http", "https", "s3")
"""Schemes of the sources that a store here opens; some need an extra."""

_ADDRESSES: Mapping[str, Callable[[str], object]] = {
    "az": ObjectAddress.parse,
    "gs": ObjectAddress.parse,
    "hf": HubAddress.parse,
    "s3": ObjectAddress.parse,
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_VERSION = re.compile(r"versionid=[\w.~:-]+", re.IGNORECASE | re.ASCII)
"""The one query that is no secret, and that says which bytes are meant."""
HUB_TOKEN = re.compile(r"hf_[A-Za-z0-9]{16,}")
"""How the Hub's tokens look: what stands before an `@` is usually a repository."""


def find_flaw(source: str) -> str | None:
    """Return why no store anywhere could open `source`, or None; whether it is there is not asked.

    What schemes other than ours look like is not for us to say.
    """
    if _SCHEME.match(source) is None:
        return _find_flaw_of_path(source)
    scheme = source.partition(":")[0].lower()
    if not source.isprintable():
        return "has characters that no address has"
    if scheme in _ADDRESSES:
        return _find_flaw_of_address(source, scheme)
    return _find_flaw_of_url(source, scheme)


def _find_flaw_of_url(source: str, scheme: str) -> str | None:
    try:
        parts = urlsplit(source)
        server = parts.hostname
        parts.port  # noqa: B018 - it is read when it is asked for
    except ValueError as error:
        return f"is not a URL: {str(error)[:1].lower()}{str(error)[1:]}"
    if scheme in {"http", "https"} and not server:
        return "is not a URL: it names no server"
    if scheme == "file":
        here = parts.netloc in {"", "localhost"}
        return _find_flaw_of_path(unquote(parts.path) if here else "")
    return None


def _find_flaw_of_path(path: str) -> str | None:
    if "\0" in path:
        return "has a character that no path has"
    return None if Path(path).is_absolute() else "is not an absolute path on this machine"


def _find_flaw_of_address(source: str, scheme: str) -> str | None:
    if "://" not in source:
        return f"is not a URL; write {scheme}://..."
    try:
        _ADDRESSES[scheme](source)
    except AddressError as error:
        return str(error)
    return None


def is_local(source: str) -> bool:
    """Say whether `source` is a file of this machine: reading it opens no socket."""
    found = _SCHEME.match(source)
    return found is None or found[1].lower() == "file"


def redact(source: str) -> str:
    """Return `source` without what may be a secret: user, password, query.

    The version of an object is none, and stays.
    """
    try:
        parts = urlsplit(source)
    except ValueError:
        return "a source that is not a URL"
    if not parts.scheme:
        return source
    query = fragment = ""
    if parts.scheme in _ADDRESSES:
        query = parts.query if _VERSION.fullmatch(parts.query) else ""
        fragment = parts.fragment
    return urlunsplit((parts.scheme, _shown_server(parts), parts.path, query, fragment))


def _shown_server(parts: SplitResult) -> str:
    """Return the server without its user: for `az:` that is a container, for `hf:` a repository."""
    user, at, server = parts.netloc.rpartition("@")
    if parts.scheme not in {"az", "hf"} or ":" in user or HUB_TOKEN.search(user):
        return server
    return f"{user}{at}{server}"
