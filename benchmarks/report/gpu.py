"""The tables of a GPU behind a server."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.report.markdown import conditions, goals_table, markdown, spread, versions
from benchmarks.report.points import CEILING, OURS, Points

if TYPE_CHECKING:
    from collections.abc import Iterator

    Goal = tuple[str, str, float]

LIMITED = "hatch-mar, maxGPUMemory"


def tabulate_gpu(results: dict[str, Any]) -> str:
    """Return what the loop does by size and mode, what each server does, and the goals."""
    loop = results["loop"]
    modes = list(loop["rates"])
    sizes = list(loop["rates"][modes[0]])
    rows = [[size, *(f"{loop['rates'][mode][size]:,.0f}" for mode in modes)] for size in sizes]
    parts = [
        f"**The plain loop on one {loop['name']}, images/s**",
        markdown(["batch", *modes], rows),
    ]
    for task in results["tasks"]:
        parts += [f"**{_title(results, task)}**", _tabulate_task(results, task)]
    parts += [
        goals_table(_find_goals(results)),
        conditions(results),
        "Versions: " + versions(results["versions"]) + f", torch {loop['torch']}.",
    ]
    return "\n\n".join(filter(None, parts))


def _title(results: dict[str, Any], task: str) -> str:
    images, size = results["images"][task], task.rpartition("-")[2]
    form = "as JSON with base64" if task.startswith("encoded") else "as bytes"
    return f"{images} image{'s' * (images > 1)} a request, {form}, batchSize {size}"


def _tabulate_task(results: dict[str, Any], task: str) -> str:
    points, images = Points.of_task(results, task), results["images"][task]
    rows = []
    for name in points.names():
        cells = [name]
        for count in results["connections"]:
            rates = [rate * images for rate in points.values(name, "rate", count)]
            p50, p99 = (points.median(name, key, count) for key in ("p50", "p99"))
            cells += [spread(rates, 0), f"{p50:.2f} / {p99:.2f}"]
        rows.append(cells)
    header = ["server"]
    for count in results["connections"]:
        header += [f"{count}: images/s", f"{count}: p50 / p99 ms"]
    return markdown(header, rows)


def _find_goals(results: dict[str, Any]) -> Iterator[Goal]:
    rates, knee = results["loop"]["rates"], str(results["knee"])
    batches, singles = (Points.of_task(results, task) for task in results["tasks"][:2])
    images = results["images"][results["tasks"][0]]
    for mode in rates:
        name = OURS if mode == "eager" else f"{OURS}, {mode}"
        if batches.has(name):
            loop = rates[mode].get(str(images), rates[mode][knee])
            got = _best(batches, name, results) * images
            yield f"images/s, client batches, {mode}: the same loop's", "at least 0.9", got / loop
    if singles.has(OURS, CEILING):
        bound = min(_best(singles, CEILING, results), rates["eager"][knee])
        got = _best(singles, OURS, results)
        yield "requests/s, one image each: HTTP's or the loop's", "at least 0.9", got / bound
        alone = 1000 / rates["eager"]["1"]
        least = min(results["connections"])
        yield "ms added at 1 connection", "", singles.median(OURS, "p50", least) - alone
    for mode in ("graphs", "compile"):
        if singles.has(OURS, f"{OURS}, {mode}"):
            ratio = _best(singles, f"{OURS}, {mode}", results) / _best(singles, OURS, results)
            yield f"requests/s, {mode}: eager's", "", ratio
    yield from _find_shared_goals(results, _best(batches, OURS, results) * images)


def _find_shared_goals(results: dict[str, Any], alone: float) -> Iterator[Goal]:
    """Yield what was set aside under a limit, and what two models do on one GPU."""
    extras: list[dict[str, Any]] = results["extras"]
    taken = [one["reserved_mb"] for one in extras if one["peer"] == LIMITED]
    if taken:
        yield "memory set aside, at most: maxGPUMemory", "at most 1", max(taken) / results["limit"]
    both = [
        sum(value for key, value in one.items() if key != "peer")
        for one in extras
        if one["peer"] == "both"
    ]
    if both:
        yield "images/s of two models at once: one's alone", "", median(both) / alone


def _best(points: Points, name: str, results: dict[str, Any]) -> float:
    """Return the most requests a second at any number of connections."""
    return max(points.median(name, "rate", count) for count in results["connections"])
