"""Looking up what was measured: points by server, task and connections."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.report.markdown import spread
from benchmarks.tally import mean_size

OURS, CEILING, MOSEC, FASTAPI = "hatch-mar", "asyncio-protocol", "mosec", "fastapi"
LOOP, FUNCTION = "the worker's own loop", "the bare function"
TORCHSERVES = ("torchserve", "torchserve-quiet")


@dataclass(frozen=True, slots=True)
class Points:
    """Points of one task, or of a benchmark that has no more than one."""

    points: list[dict[str, Any]]

    @classmethod
    def of_task(cls, results: dict[str, Any], task: str) -> Points:
        return cls([point for point in results["points"] if point["task"] == task])

    def names(self) -> list[str]:
        """Return the servers, that with the most requests a second first."""
        found = {point["peer"] for point in self.points}
        most = {
            name: max(point["connections"] for point in self.points if point["peer"] == name)
            for name in found
        }
        return sorted(found, key=lambda name: -self.median(name, "rate", most[name]))

    def has(self, *names: str) -> bool:
        return set(names) <= {point["peer"] for point in self.points}

    def values(self, name: str, key: str, connections: int) -> list[float]:
        return [
            point[key]
            for point in self.points
            if point["peer"] == name and point["connections"] == connections
        ]

    def median(self, name: str, key: str, connections: int) -> float:
        return median(self.values(name, key, connections))

    def best(self, key: str, connections: int) -> float:
        """Return the best of the other servers: the most for a rate, the least for latency."""
        others = set(self.names()) - {OURS, CEILING, LOOP, FUNCTION}
        pick = max if key == "rate" else min
        found = [
            median(values) for name in others if (values := self.values(name, key, connections))
        ]
        return pick(found)

    def cells(self, name: str, counts: list[int]) -> list[str]:
        """Return for each number of connections the requests a second, and p50 / p99."""
        cells = []
        for count in counts:
            rates = self.values(name, "rate", count)
            if not rates:
                cells += ["", ""]
                continue
            p50, p99 = (self.median(name, key, count) for key in ("p50", "p99"))
            # The loop and the function have a rate, and nobody who waits.
            waits = "" if name in (LOOP, FUNCTION) else f"{p50:.2f} / {p99:.2f}"
            cells += [spread(rates, 0 if rates[0] >= 100 else 1), waits]
        return cells

    def cpu(self, name: str, connections: int) -> str:
        """Return the CPU microseconds of a request, and those of each process if it has several."""
        whole = self.median(name, "cpu_us", connections)
        each = [
            point["cpu_each"]
            for point in self.points
            if point["peer"] == name and point["connections"] == connections
            if point.get("cpu_each")
        ]
        names = list(dict.fromkeys(program for shares in each for program in shares))
        if len(names) < 2:
            return f"{whole:.0f}" if whole else ""
        shares = (median(one.get(program, 0.0) for one in each) for program in names)
        return f"{whole:.0f} ({' + '.join(f'{share:.0f}' for share in shares)})"

    def batch(self, name: str, connections: int) -> str:
        """Return the mean size of a batch, as the handler counted them."""
        means = [
            mean_size({int(size): count for size, count in point["sizes"].items()})
            for point in self.points
            if point["peer"] == name and point["connections"] == connections and point.get("sizes")
        ]
        return f"{median(means):.1f}" if means else ""
