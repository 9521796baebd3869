"""The handler that TorchServe and hatch-mar serve: each request gets its own JSON back."""

from __future__ import annotations

from typing import Any


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[Any] | None:
    if data is None:
        return None
    return [row["body"] for row in data]
