"""What a benchmark needs to know of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Peer(Protocol):
    """A server with the echo handler, one worker, batch size 1."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str:
        """Where it takes a POST."""
        ...

    @property
    def warm_up(self) -> float:
        """Seconds of load before anything is timed."""
        ...

    def prepare(self) -> Mapping[str, str]:
        """Install what it needs, and return the versions that count."""
        ...

    def command(self, port: int, scratch: Path) -> list[str]:
        """Return the command that serves on `port` of 127.0.0.1; `scratch` is its directory."""
        ...
