"""A file that an archive names instead of carrying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hatch_mar.weights.digest import is_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Weights pinned by digest, and where to find them."""

    target: str
    """Path in the model directory at which the handler expects the file (POSIX, relative)."""
    source: str
    """URI: `https://...`, `file:///...`; what the author wrote, resolved."""
    sha256: str
    """64 lower-case hex digits."""
    size: int | None = None
    """Bytes, if known."""
    mirrors: tuple[str, ...] = ()
    """Further URIs of the same bytes, tried in order."""

    def as_dict(self) -> dict[str, Any]:
        """Return the form in which the seal holds it."""
        return {
            "target": self.target,
            "source": self.source,
            "sha256": self.sha256,
            "size": self.size,
            "mirrors": list(self.mirrors),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Reference:
        """Read back what `as_dict` wrote.

        Raises:
            KeyError: a part is missing.
            TypeError, ValueError: a part is not what it should be.
        """
        mirrors, size = raw.get("mirrors", []), raw.get("size")
        if not isinstance(mirrors, list):
            raise TypeError(f"mirrors {mirrors!r}")
        for text in (raw["target"], raw["source"], *mirrors):
            if not isinstance(text, str):
                raise TypeError(f"{text!r} is not a string")
        if not is_sha256(raw["sha256"]):
            raise ValueError(f"{raw['sha256']!r} is not a sha256")
        if size is not None and (type(size) is not int or size < 0):
            raise ValueError(f"{size!r} is not a size")
        return cls(
            target=raw["target"],
            source=raw["source"],
            sha256=raw["sha256"],
            size=size,
            mirrors=tuple(mirrors),
        )
