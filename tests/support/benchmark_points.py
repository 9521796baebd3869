"""Points as they are read from JSON."""

from __future__ import annotations

from typing import Any

MACHINE = {"cores": 2, "processor": "a processor", "system": "Linux 6", "python": "3.11.7"}


def point(peer: str, rate: float, **others: Any) -> dict[str, Any]:
    found = {"task": "json-32", "round": 0, "connections": 64, "p50": 1.0, "p99": 2.0}
    costs = {"cpu_us": 10.0, "cpu_each": {}, "foreign": 0.0, "pss": 1.0, "sizes": {}}
    return {"peer": peer, "rate": rate, **found, **costs, **others}
