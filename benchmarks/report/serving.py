"""The tables of servers that are as busy as they can be: a handler that does nothing, a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.report.markdown import conditions, goals_table, markdown, versions
from benchmarks.report.points import (
    CEILING,
    FASTAPI,
    LOOP,
    MOSEC,
    OURS,
    TORCHSERVES,
    Points,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Goal = tuple[str, str, float]

TITLES = {
    "json": "JSON",
    "raw": "raw bytes",
    "image": "Image",
    "noop": "No-op",
}


def tabulate_echo(results: dict[str, Any]) -> str:
    """Return the table of all peers, the goals, and a line on how it was measured."""
    points, counts = Points(results["points"]), results["connections"]
    most = max(counts)
    rows = [
        [
            name,
            *points.cells(name, counts),
            points.cpu(name, most),
            f"{points.median(name, 'pss', most):.0f}",
        ]
        for name in points.names()
    ]
    parts = [
        markdown([*_header(counts), "CPU µs/request", "PSS MB"], rows),
        goals_table(_echo_goals(points, counts), "hatch-mar, times"),
        conditions(results),
        "Versions: " + versions(results["versions"]) + ".",
    ]
    return "\n\n".join(filter(None, parts))


def tabulate_net(results: dict[str, Any]) -> str:
    """Return a table and goals for each task: JSON and bytes, one at a time and in batches."""
    parts = []
    for task in results["tasks"]:
        points, counts = Points.of_task(results, task), results["connections"]
        most = max(counts)
        rows = [
            [
                name,
                *points.cells(name, counts),
                points.batch(name, most),
                points.cpu(name, most),
            ]
            for name in points.names()
        ]
        header = [*_header(counts), f"{most}: mean batch", "CPU µs/request"]
        parts += [
            f"**{title_of(task)}**",
            markdown(header, rows),
            goals_table(_net_goals(points, counts), "hatch-mar, times"),
        ]
    parts += [conditions(results), "Versions: " + versions(results["versions"]) + "."]
    return "\n\n".join(filter(None, parts))


def title_of(task: str) -> str:
    """Return `JSON, batchSize 32` for `json-32`."""
    work, _, size = task.rpartition("-")
    return f"{TITLES[work]}, batchSize {size}"


def _header(counts: Sequence[int]) -> list[str]:
    pairs = ((f"{count}: requests/s", f"{count}: p50 / p99 ms") for count in counts)
    return ["server", *(cell for pair in pairs for cell in pair)]


def _echo_goals(points: Points, counts: Sequence[int]) -> Iterator[Goal]:
    """Yield the promised ratios, as far as the peers they speak of were measured."""
    most, least = max(counts), min(counts)
    if points.has(OURS, *TORCHSERVES):
        better = max(points.median(peer, "rate", most) for peer in TORCHSERVES)
        ratio = points.median(OURS, "rate", most) / better
        yield f"throughput, {most}: the better torchserve's", "at least 25", ratio
    if points.has(OURS, MOSEC):
        ratio = points.median(OURS, "rate", most) / points.median(MOSEC, "rate", most)
        yield f"throughput, {most}: mosec's", "at least 5", ratio
    if points.has(OURS, FASTAPI):
        tail = points.median(OURS, "p99", most) / points.median(FASTAPI, "p99", most)
        yield f"p99, {most}: FastAPI's", "below 1", tail
    if points.has(OURS, CEILING):
        ratio = points.median(OURS, "rate", most) / points.median(CEILING, "rate", most)
        yield f"throughput, {most}: the bare protocol's", "towards 0.5", ratio
        ratio = points.median(OURS, "p50", least) / points.median(CEILING, "p50", least)
        yield f"p50, {least}: the bare protocol's", "at most 2", ratio


def _net_goals(points: Points, counts: Sequence[int]) -> Iterator[Goal]:
    if not points.has(OURS):
        return
    if set(points.names()) - {OURS, LOOP, "the bare function"}:
        for count in counts:
            ratio = points.median(OURS, "rate", count) / points.best("rate", count)
            yield f"throughput, {count}: the best other's", "above 1", ratio
            tail = points.median(OURS, "p99", count) / points.best("p99", count)
            yield f"p99, {count}: the best other's", "at most 1.1", tail
    if points.has(LOOP):
        most = max(counts)
        ratio = points.median(OURS, "rate", most) / points.median(LOOP, "rate", most)
        yield f"throughput, {most}: the worker's own loop's", "at least 0.8", ratio
