"""The places that weights come from: one module per kind, which alone imports its library.

A store never decides integrity: it gives bytes, and the reference's digest says whether they are
the right ones. What goes wrong is an `OSError` of the kind that says what to do about it:
`ConnectionError` and `TimeoutError` may pass, the others will not. No message holds a secret.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hatch_mar.weights.stores.protocol import STALL, Resolved
from hatch_mar.weights.uri import find_flaw, is_local

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from hatch_mar.weights.stores.protocol import Source

_MODULES: Mapping[str, str] = {
    "": "files",
    "file": "files",
    "http": "http",
    "https": "http",
    "s3": "objects",
    "gs": "objects",
    "az": "objects",
    "hf": "hub",
}
"""The module that opens sources of a scheme, by its function `open_source`."""


def open_source(uri: str, *, stall: float = STALL) -> Source:
    """Return the source at `uri`, a URI or an absolute path. Nothing may be asked of it yet.

    Args:
        uri: Where the file is.
        stall: Seconds without a byte after which a server counts as gone.

    Raises:
        OSError: nothing here reads such a source, or its extra is missing; see the module.
    """
    source: Source = _find_store(uri).open_source(uri, stall=stall)
    return source


def resolve(uri: str, *, stall: float = STALL) -> Resolved:
    """Ask the store which bytes `uri` means now, and how to say so for ever; opens a connection.

    A branch of the Hub becomes a commit, an object its version or generation where its store keeps
    them. Stores that have no such thing, and plain servers and disks, give back what was asked.

    Raises:
        OSError: as `open_source` and `Source.open`.
    """
    store = _find_store(uri)
    if hasattr(store, "resolve"):
        resolved: Resolved = store.resolve(uri, stall=stall)
        return resolved
    source: Source = store.open_source(uri, stall=stall)
    try:
        stream = source.open()
        stream.close()
    finally:
        source.close()
    return Resolved(source=uri, size=stream.total, sha256=None)


def _find_store(uri: str) -> ModuleType:
    flaw = find_flaw(uri)
    if flaw is not None:
        raise OSError(flaw)
    scheme = "" if is_local(uri) else urlsplit(uri).scheme
    if scheme not in _MODULES:
        known = ", ".join(sorted(filter(None, _MODULES)))
        raise OSError(f"no store reads {scheme!r} sources; known are {known} and paths")
    return importlib.import_module(f"{__name__}.{_MODULES[scheme]}")
