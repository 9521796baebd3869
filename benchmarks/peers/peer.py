"""What a benchmark needs to know of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Peer(Protocol):
    """A server with one worker for each of its tasks."""

    @property
    def name(self) -> str: ...

    @property
    def paths(self) -> Mapping[str, str]:
        """Where it takes a POST, for each task that it takes part in."""
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
