"""What browsers are told about pages of other origins: TorchServe's `cors_allowed_*` settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """Values of headers that every answer carries; an empty one is left out."""

    origin: str = ""
    """`cors_allowed_origin`, such as `*` or `https://digits.example`."""
    methods: str = ""
    """`cors_allowed_methods`."""
    headers: str = ""
    """`cors_allowed_headers`."""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The headers, by name and value. Without an origin there are none, as in TorchServe."""
        if not self.origin:
            return []
        pairs = [
            ("Access-Control-Allow-Origin", self.origin),
            ("Access-Control-Allow-Methods", self.methods),
            ("Access-Control-Allow-Headers", self.headers),
        ]
        return [pair for pair in pairs if pair[1]]

    @property
    def lines(self) -> str:
        """The headers as they stand in a head."""
        return "".join(f"{name}: {value}\r\n" for name, value in self.pairs)
